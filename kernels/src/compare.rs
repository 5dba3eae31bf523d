//! How far a device's result lies from the reference.

/// The largest relative difference of two equally long results. A reference value closer to zero than the smallest
/// normal number counts as that number. Infinite where the lengths differ, or where exactly one side is NaN
/// or the infinities differ.
pub fn max_relative_error(actual: &[f32], reference: &[f32]) -> f64 {
    if actual.len() != reference.len() {
        return f64::INFINITY;
    }
    actual
        .iter()
        .zip(reference)
        .map(|(&actual, &reference)| relative_error(actual, reference))
        .fold(0.0, f64::max)
}

fn relative_error(actual: f32, reference: f32) -> f64 {
    if actual == reference || (actual.is_nan() && reference.is_nan()) {
        return 0.0;
    }
    let (actual, reference) = (f64::from(actual), f64::from(reference));
    let error = (actual - reference).abs() / reference.abs().max(f64::from(f32::MIN_POSITIVE));
    if error.is_nan() { f64::INFINITY } else { error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_relative_to_the_reference() {
        assert_eq!(max_relative_error(&[1.0, -2.0], &[1.0, -2.0]), 0.0);
        assert_eq!(max_relative_error(&[1.0, 3.0], &[1.0, 4.0]), 0.25);
        assert_eq!(max_relative_error(&[0.0], &[-0.0]), 0.0);
        assert_eq!(max_relative_error(&[f32::NAN], &[f32::NAN]), 0.0);
        assert_eq!(max_relative_error(&[f32::INFINITY], &[f32::INFINITY]), 0.0);
    }

    #[test]
    fn what_cannot_be_compared_is_infinitely_far() {
        assert_eq!(max_relative_error(&[1.0], &[]), f64::INFINITY);
        assert_eq!(max_relative_error(&[f32::NAN], &[1.0]), f64::INFINITY);
        assert_eq!(max_relative_error(&[1.0], &[f32::NAN]), f64::INFINITY);
        assert_eq!(max_relative_error(&[f32::INFINITY], &[f32::NEG_INFINITY]), f64::INFINITY);
        assert_eq!(max_relative_error(&[1.0], &[f32::INFINITY]), f64::INFINITY);
    }
}
