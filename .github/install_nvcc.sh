#!/usr/bin/env bash
# nvcc for the wheels, of CUDA 12, whose programs run with the drivers of CUDA 12 and 13; in the manylinux_2_28 container that cibuildwheel starts.
set -euo pipefail
case "$(uname -m)" in
  x86_64) platform=x86_64 ;;
  aarch64) platform=sbsa ;;
esac
dnf -y install dnf-plugins-core
dnf config-manager --add-repo "https://developer.download.nvidia.com/compute/cuda/repos/rhel8/$platform/cuda-rhel8.repo"
dnf -y install cuda-nvcc-12-9 cuda-cudart-devel-12-9
