#include "images.h"

// The file that images/make.py packs becomes part of the module.
asm(R"(
  .section .rodata
  .balign 16
  .hidden fused_penalty_images
  .global fused_penalty_images
fused_penalty_images:
  .incbin ")" FUSED_PENALTY_IMAGES
    R"("
  .previous
)");
extern "C" const unsigned char fused_penalty_images[];

namespace fused_penalty::cuda {
namespace {

constexpr Image kImages[] = {
#include "images.inc"
};

// Machine code runs on its architecture and later ones of the same major number; PTX on all later ones.
bool runs_on(const Image& image, int capability) {
  return image.arch <= capability && (image.kind == kPtx || image.arch / 10 == capability / 10);
}

std::string dotted(int capability) { return std::to_string(capability / 10) + "." + std::to_string(capability % 10); }

}  // namespace

const void* Image::data() const { return fused_penalty_images + offset; }

const Image* best_image(const std::string& kernel, int capability) {
  const Image* best = nullptr;
  const auto better = [](const Image& a, const Image& b) {
    return a.kind != b.kind ? a.kind == kCubin : a.arch > b.arch;
  };
  for (const Image& image : kImages)
    if (image.kernel == kernel && runs_on(image, capability) && (!best || better(image, *best))) best = &image;
  return best;
}

std::string why_no_image(int capability) {
  int lowest = kImages[0].arch;
  for (const Image& image : kImages) {
    if (runs_on(image, capability)) return "";
    lowest = image.arch < lowest ? image.arch : lowest;
  }
  return "compute capability " + dotted(capability) + " is below " + dotted(lowest) + ", the lowest of the kernels";
}

}  // namespace fused_penalty::cuda
