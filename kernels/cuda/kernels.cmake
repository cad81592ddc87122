# The CUDA launcher as a static library, with the images of the kernels in it. The host's compiler is enough: the PTX is
# in the repository, and the driver is opened at run time. Machine code for FUSED_PENALTY_CUDA_ARCHS is added by nvcc.
set(cuda_dir ${CMAKE_CURRENT_LIST_DIR})
set(packed_dir ${CMAKE_CURRENT_BINARY_DIR}/cuda-images)
set(packed ${packed_dir}/images.bin ${packed_dir}/images.inc)
set(kernel_sources "")
if(FUSED_PENALTY_CUDA_ARCHS)
  file(GLOB kernel_sources CONFIGURE_DEPENDS ${cuda_dir}/*.h ${cuda_dir}/../*.h ${cuda_dir}/images/*.cu)
endif()
add_custom_command(
  OUTPUT ${packed}
  COMMAND ${CMAKE_COMMAND} -E rm -rf ${packed_dir}/ptx
  COMMAND ${CMAKE_COMMAND} -E make_directory ${packed_dir}/ptx
  COMMAND ${CMAKE_COMMAND} -E chdir ${packed_dir}/ptx ${CMAKE_COMMAND} -E tar xf ${cuda_dir}/images/ptx.tar.xz
  COMMAND ${Python_EXECUTABLE} ${cuda_dir}/images/make.py pack ${packed_dir} ${packed_dir}/ptx ${FUSED_PENALTY_CUDA_ARCHS}
  DEPENDS ${cuda_dir}/images/make.py ${cuda_dir}/images/ptx.tar.xz ${kernel_sources}
  VERBATIM)
add_library(fused_penalty_cuda STATIC
  ${cuda_dir}/driver.cc ${cuda_dir}/images.cc ${cuda_dir}/loaded.cc ${cuda_dir}/launch.cc ${cuda_dir}/step_launch.cc)
set_source_files_properties(${cuda_dir}/images.cc PROPERTIES
  OBJECT_DEPENDS "${packed}" COMPILE_DEFINITIONS FUSED_PENALTY_IMAGES="${packed_dir}/images.bin")
target_include_directories(fused_penalty_cuda PRIVATE ${packed_dir})
target_compile_options(fused_penalty_cuda PRIVATE -Wall -Wextra)
target_link_libraries(fused_penalty_cuda PUBLIC ${CMAKE_DL_LIBS})
