// One element's step of an optimizer with the penalty in it, for host and device. d = x - origin, the origin is the
// anchor or 0, and S(z, t) = z - clip(z, t):
//
//   the gradient    u = scale·g + l1·sign(d) + l2·d + decay·x          l1, l2: the penalty as a gradient ("grad")
//   SGD             b = keep·b + take·u,  u = look != 0 ? u + look·b : b
//   Adam            m = m + take·(u - m),  v = keep·v + (1 - keep)·u²,  u = m / D,  D = root·√v + epsilon
//   the step        z = shrink·x - rate·u
//   the penalty     x = origin + S(z - origin, threshold / D) / (1 + pull / D)    in Adam's metric (metric != 0)
//                   x = origin + S(z - origin, threshold) / (1 + pull)            in the euclidean one
//
// amsgrad takes the largest v so far for D. An element that has never had a gradient (v = 0) has no metric: D would be
// epsilon alone, and the first step would set whole untouched rows of an embedding to zero. The penalty leaves it alone.
// A step with skip != 0 writes nothing (GradScaler found an overflow).
//
// F is float, double or a vector of them, as in elastic_net.h; the caller has the square root.
#pragma once

#include "elastic_net.h"
#include "steps.h"

namespace fused_penalty {

template <class S>
struct StepCoefficients {
#define FUSED_PENALTY_ENTRY(name) S name;
  FUSED_PENALTY_STEP_COEFFICIENTS(FUSED_PENALTY_ENTRY)
#undef FUSED_PENALTY_ENTRY
  S rest;  // 1 - keep, before it is rounded

  static StepCoefficients from(const double* c) {
    return {
#define FUSED_PENALTY_ENTRY(name) static_cast<S>(value_of(c, StepCoefficient::name)),
        FUSED_PENALTY_STEP_COEFFICIENTS(FUSED_PENALTY_ENTRY)
#undef FUSED_PENALTY_ENTRY
            static_cast<S>(1 - value_of(c, StepCoefficient::keep))};
  }
};

template <class F, class S>
static constexpr F seen_gradient(F x, F d, F scaled_gradient, const StepCoefficients<S>& c) {
  F u = scaled_gradient;
  if (c.l1 != 0) u += c.l1 * sign(d);  // not 0·d, which is NaN for an infinite d
  if (c.l2 != 0) u += c.l2 * d;
  if (c.decay != 0) u += c.decay * x;
  return u;
}

// Updates the momentum and returns what SGD goes along.
template <class F, class S>
static constexpr F with_momentum(F u, F& momentum, const StepCoefficients<S>& c) {
  momentum = c.keep * momentum + c.take * u;
  return c.look != 0 ? u + c.look * momentum : momentum;
}

template <class F, class S>
static constexpr void update_moments(F u, F& first, F& second, const StepCoefficients<S>& c) {
  first += c.take * (u - first);
  second = c.keep * second + c.rest * u * u;
}

// d after the proximal step of a displacement z, in the euclidean metric.
template <class F, class S>
static constexpr F pulled(F z, const StepCoefficients<S>& c) {
  return (z - clip(z, c.threshold)) / (1 + c.pull);
}

// The same in the metric D, whose reciprocal is given; `second` is what D was made of.
template <class F, class S>
static constexpr F pulled_in_metric(F z, F reciprocal, F second, const StepCoefficients<S>& c) {
  F found = z - clip(z, c.threshold * reciprocal);
  if (c.pull != 0) found /= 1 + c.pull * reciprocal;
  return second == 0 ? z : found;
}

}  // namespace fused_penalty
