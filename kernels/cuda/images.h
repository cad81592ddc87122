// The images that the module carries: PTX, which a driver compiles for any GPU from its architecture on and keeps in
// its cache, and cubins, machine code for one architecture, where the build was asked for them. images/make.py has made
// them, an image for each kernel.
#pragma once

#include <string>

namespace fused_penalty::cuda {

enum ImageKind { kPtx, kCubin };

struct Image {
  const char* kernel;
  ImageKind kind;
  int arch;       // 80: compute capability 8.0
  size_t offset;  // among all images

  const void* data() const;
};

// The best image of the kernel for a device with this compute capability (80: 8.0); null if none runs there.
const Image* best_image(const std::string& kernel, int capability);

// Why no kernel runs on such a device; empty if they do.
std::string why_no_image(int capability);

}  // namespace fused_penalty::cuda
