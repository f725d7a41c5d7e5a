//! Multiples of public points of secp256k1, in variable time: what every check of a signature costs. Nothing here
//! may see a secret.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LazyLock, OnceLock};

use k256::elliptic_curve::PrimeField;
use k256::elliptic_curve::ops::{LinearCombination, MulByGeneratorVartime};
use k256::{AffinePoint, ProjectivePoint, Scalar};
use wnaf::array::typenum::U6;
use wnaf::{WnafBase, WnafScalar};

/// A key's public point.
pub(super) struct PublicPoint {
    point: ProjectivePoint,
    used: AtomicBool,
    quarters: OnceLock<Box<Quarters>>,
}

/// P, 2⁶⁴·P, 2¹²⁸·P and 2¹⁹²·P with their first odd multiples, 7.5 KiB: a multiple of P is then a sum of four with
/// scalars of 64 bits, and has as many doublings instead of 256. (k256 gets by with 128, by the endomorphism.)
struct Quarters([WnafBase<ProjectivePoint, U6>; 4]);

/// Made when the first signature is checked, from the generator and not from k256's table of it, which signing uses.
static GENERATOR: LazyLock<Quarters> = LazyLock::new(|| Quarters::new(ProjectivePoint::GENERATOR));

impl PublicPoint {
    pub(super) const fn new(point: ProjectivePoint) -> Self {
        Self { point, used: AtomicBool::new(false), quarters: OnceLock::new() }
    }

    pub(super) fn to_affine(&self) -> AffinePoint {
        self.point.to_affine()
    }

    /// generator·G + scalar·P, by k256 alone.
    pub(super) fn plain_sum(&self, generator: &Scalar, scalar: &Scalar) -> ProjectivePoint {
        ProjectivePoint::mul_by_generator_and_mul_add_vartime(generator, scalar, &self.point)
    }

    /// The quarters are worth their price (1.6 signatures) if they are used twice. Many keys are used but once:
    /// those of policies without hold time, and those that are derived for one request.
    fn quarters(&self) -> Option<&Quarters> {
        if let Some(quarters) = self.quarters.get() {
            return Some(quarters);
        }
        let used = self.used.swap(true, Ordering::Relaxed);
        used.then(|| &**self.quarters.get_or_init(|| Box::new(Quarters::new(self.point))))
    }
}

/// generator·G + Σ scalar·P.
pub(super) fn sum(generator: Scalar, terms: &[(&PublicPoint, Scalar)]) -> ProjectivePoint {
    let (mut quartered, mut plain) = (Vec::with_capacity(terms.len() + 1), Vec::new());
    for (point, scalar) in terms {
        match point.quarters() {
            Some(quarters) => quartered.push((quarters, *scalar)),
            None => plain.push((point.point, *scalar)),
        }
    }
    // The generator goes where doublings are paid for anyway.
    if quartered.is_empty() {
        plain.push((ProjectivePoint::GENERATOR, generator));
        return ProjectivePoint::lincomb_vartime(plain.as_slice());
    }
    quartered.push((&*GENERATOR, generator));
    Quarters::sum(&quartered) + ProjectivePoint::lincomb_vartime(plain.as_slice())
}

impl Quarters {
    fn new(point: ProjectivePoint) -> Self {
        let mut next = point;
        Self(std::array::from_fn(|quarter| {
            if quarter > 0 {
                (0..64).for_each(|_| next.double_in_place());
            }
            WnafBase::new(&next)
        }))
    }

    fn sum(terms: &[(&Self, Scalar)]) -> ProjectivePoint {
        let scalars: Vec<_> = terms.iter().map(|(_, scalar)| quarters_of(scalar)).collect();
        let pairs: Vec<_> =
            terms.iter().zip(&scalars).flat_map(|((Self(bases), _), of)| bases.iter().zip(of)).collect();
        WnafBase::multiscalar_mul(pairs.iter().copied())
    }
}

/// The least significant first.
fn quarters_of(scalar: &Scalar) -> [WnafScalar<Scalar, U6>; 4] {
    let mut bytes: [u8; 32] = scalar.to_repr().into();
    bytes.reverse();
    let (quarters, _) = bytes.as_chunks::<8>();
    std::array::from_fn(|quarter| {
        quarters.get(quarter).map(|bytes| WnafScalar::from_le_bytes(bytes)).unwrap_or_default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use k256::elliptic_curve::Generate;

    #[test]
    fn sums_are_those_of_k256_with_and_without_quarters() {
        let edges = [Scalar::ZERO, Scalar::ONE, -Scalar::ONE, -Scalar::from(2_u32), Scalar::from(u64::MAX)];
        let random = std::iter::repeat_with(Scalar::generate).take(50);
        let points: Vec<_> = (0..3).map(|_| PublicPoint::new(ProjectivePoint::generate())).collect();
        for (round, scalar) in edges.into_iter().chain(random).enumerate() {
            let other = edges[round % edges.len()] + Scalar::from(round as u64 / 2);
            let expected = ProjectivePoint::GENERATOR * scalar + points[0].point * other;
            assert_eq!(points[0].plain_sum(&scalar, &other), expected, "{round}");
            assert_eq!(sum(scalar, &[(&points[0], other)]), expected, "{round}");
            let expected = expected + points[1 + round % 2].point * scalar;
            assert_eq!(sum(scalar, &[(&points[0], other), (&points[1 + round % 2], scalar)]), expected, "{round}");
        }
        assert!(points.iter().all(|point| point.quarters.get().is_some()));
    }
}
