// One element's step of an optimizer with the penalty in it, for host and device. d = x - origin, the origin is the
// anchor or 0, and S(z, t) = z - clip(z, t):
//
//   the gradient    u = scale·g + l1·sign(d) + l2·d + decay·x          l1, l2: the penalty as a gradient ("grad")
//   SGD             b = keep·b + take·u,  u = look != 0 ? u + look·b : b
//   Adam            m = m + take·(u - m),  v = keep·v + rest·u²,  u = m / D,  D = root·√v + epsilon
//                   (rest is 1 - keep, and apart, since a difference of float32 numbers would be too coarse)
//   the step        z = shrink·x - rate·u
//   the penalty     x = origin + S(z - origin, threshold / D) / (1 + pull / D)    in Adam's metric (metric != 0)
//                   x = origin + S(z - origin, threshold) · inverse               in the euclidean one
//
// amsgrad takes the largest v so far for D. An element that has never had a gradient (v = 0) has no metric: D would be
// epsilon alone, and the first step would set whole untouched rows of an embedding to zero. The penalty leaves it
// alone. A step with skip != 0 writes nothing (GradScaler found an overflow).
//
// F is float, double or a vector of them, as in elastic_net.h; the caller gives the square root.
#pragma once

#include "elastic_net.h"
#include "steps.h"

namespace fused_penalty {

// A leaf's coefficients, each in every lane of F; S is the type of a lane.
template <class F, class S>
struct StepCoefficients {
#define FUSED_PENALTY_ENTRY(name) F name;
  FUSED_PENALTY_STEP_COEFFICIENTS(FUSED_PENALTY_ENTRY)
#undef FUSED_PENALTY_ENTRY
  F inverse;  // 1 / (1 + pull), from float64
  // What is there: the penalty's parts of the gradient, a decay, Nesterov's look ahead; a proximal step, its L2 part,
  // and whether its metric is Adam's.
  bool has_l1, has_l2, has_decay, looks, proximal, pulls, adaptive;

  static constexpr StepCoefficients from(const double* c) {
    const auto in_lanes = [](double value) { return F{} + static_cast<S>(value); };
    const auto is = [c](StepCoefficient which) { return value_of(c, which) != 0; };
    using enum StepCoefficient;
    return {
#define FUSED_PENALTY_ENTRY(name) in_lanes(value_of(c, StepCoefficient::name)),
        FUSED_PENALTY_STEP_COEFFICIENTS(FUSED_PENALTY_ENTRY)
#undef FUSED_PENALTY_ENTRY
            in_lanes(1 / (1 + value_of(c, pull))),
        is(l1),
        is(l2),
        is(decay),
        is(look),
        is(threshold) || is(pull),
        is(pull),
        is(metric)};
  }
};

template <class F, class S>
static constexpr F seen_gradient(F x, F d, F scaled_gradient, const StepCoefficients<F, S>& c) {
  F u = scaled_gradient;
  if (c.has_l1) u += c.l1 * sign(d);  // not 0·d, which is NaN for an infinite d
  if (c.has_l2) u += c.l2 * d;
  if (c.has_decay) u += c.decay * x;
  return u;
}

// Updates the momentum and returns what SGD goes along.
template <class F, class S>
static constexpr F with_momentum(F u, F& momentum, const StepCoefficients<F, S>& c) {
  momentum = c.keep * momentum + c.take * u;
  return c.looks ? u + c.look * momentum : momentum;
}

template <class F, class S>
static constexpr void update_moments(F u, F& first, F& second, const StepCoefficients<F, S>& c) {
  first += c.take * (u - first);
  second = c.keep * second + c.rest * u * u;
}

// d after the proximal step of a displacement z, in the euclidean metric.
template <class F, class S>
static constexpr F pulled(F z, const StepCoefficients<F, S>& c) {
  return (z - within(z, c.threshold)) * c.inverse;
}

// The same in the metric D, whose reciprocal is given; `second` is what D was made of.
template <class F, class S>
static constexpr F pulled_in_metric(F z, F reciprocal, F second, const StepCoefficients<F, S>& c) {
  F found = z - within(z, c.threshold * reciprocal);
  if (c.pulls) found /= 1 + c.pull * reciprocal;
  return second == 0 ? z : found;
}

// One element: what a walk reads, and after the step what it writes. A step leaves the arrays that it has not alone.
template <class F>
struct StepElement {
  F x, origin, gradient, first, second, maximum;
};

// Makes the step, with the gradient as the optimizer is given it (scaled) left in its place, and returns d afterwards.
template <Step kStep, bool kAnchored, class F, class S, class SquareRoot>
static constexpr F stepped(StepElement<F>& e, const StepCoefficients<F, S>& c, const SquareRoot& square_root) {
  F z = e.x, along{};
  if constexpr (has(kStep, kGradient)) {
    e.gradient = c.scale * e.gradient;
    along = seen_gradient(e.x, e.x - e.origin, e.gradient, c);
    if constexpr (kStep == Step::kMomentum) along = with_momentum(along, e.first, c);
    if constexpr (is_adam(kStep)) update_moments(along, e.first, e.second, c);
    if constexpr (has(kStep, kMaximum)) e.maximum = larger(e.maximum, e.second);
  }
  const F second = has(kStep, kMaximum) ? e.maximum : e.second;
  F reciprocal{};
  if constexpr (has(kStep, kSecond)) reciprocal = 1 / (c.root * square_root(second) + c.epsilon);
  if constexpr (is_adam(kStep)) along = e.first * reciprocal;
  if constexpr (has(kStep, kGradient)) z = c.shrink * e.x - c.rate * along;
  F after = z - e.origin;
  if (c.proximal) {
    after = has(kStep, kSecond) && c.adaptive ? pulled_in_metric(after, reciprocal, second, c) : pulled(after, c);
    z = kAnchored ? e.origin + after : after;
  }
  e.x = z;
  return after;
}

}  // namespace fused_penalty
