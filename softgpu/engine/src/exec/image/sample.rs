//! Texture fetches, by the formulas of the CUDA programming guide's appendix on texture fetching.
//!
//! A filter's weights have 8 bits of fraction, as the guide documents them. The sums are exact in double precision and rounded
//! once. A texel of weight 0 does not take part, so that an infinity beside the sampled texel does not spoil it.

use super::{AddressMode, Texels, Texture};

/// Steps between two texels that a filter's weight can tell apart.
const STEPS: i64 = 256;

/// The largest integer not above `x`, saturated; 0 for NaN. Hosts without a rounding instruction would call a library.
#[inline(always)]
fn floor(x: f64) -> i64 {
    let whole = x as i64;
    whole.saturating_sub(i64::from(whole as f64 > x))
}

/// The texel that stands for index `i` of `n`; `None` for the border.
#[inline(always)]
fn resolve(mode: AddressMode, i: i64, n: u32) -> Option<u32> {
    let n = i64::from(n);
    let index = match mode {
        AddressMode::Clamp => i.clamp(0, n - 1),
        AddressMode::Wrap => i.rem_euclid(n),
        AddressMode::Mirror => {
            let within = i.rem_euclid(2 * n);
            within.min(2 * n - 1 - within)
        }
        AddressMode::Border if (0..n).contains(&i) => i,
        AddressMode::Border => return None,
    };
    Some(index as u32)
}

/// The two texels that a coordinate lies between, and the second one's weight in steps.
#[derive(Clone, Copy, Debug)]
struct Span {
    texels: [Option<u32>; 2],
    weight: i64,
}

impl Texture {
    fn sizes(&self) -> [u32; 3] {
        let Texels { width, height, depth, .. } = self.texels;
        [width, height, depth]
    }

    /// A coordinate in units of texels, and how its axis is addressed.
    #[inline(always)]
    fn axis(&self, axis: usize, coordinate: f32) -> (f64, AddressMode) {
        let mode = self.sampler.address[axis];
        if self.sampler.normalized {
            return (f64::from(coordinate) * f64::from(self.sizes()[axis]), mode);
        }
        let mode = match mode {
            AddressMode::Wrap | AddressMode::Mirror => AddressMode::Clamp,
            mode => mode,
        };
        (f64::from(coordinate), mode)
    }

    #[inline(always)]
    fn nearest(&self, axis: usize, coordinate: f32) -> Option<u32> {
        let (x, mode) = self.axis(axis, coordinate);
        resolve(mode, floor(x), self.sizes()[axis])
    }

    #[inline(always)]
    fn span(&self, axis: usize, coordinate: f32) -> Span {
        let (x, mode) = self.axis(axis, coordinate);
        let steps = floor((x - 0.5) * STEPS as f64 + 0.5);
        let first = steps.div_euclid(STEPS);
        let n = self.sizes()[axis];
        Span {
            texels: [resolve(mode, first, n), resolve(mode, first + 1, n)],
            weight: steps.rem_euclid(STEPS),
        }
    }

    /// `tex` with float coordinates, as many as the image has axes; `layer` selects within a layered image.
    pub fn sample(&self, at: &[f32], layer: u32) -> [u32; 4] {
        let layer = layer.min(self.texels.depth - 1);
        if self.sampler.linear && self.gives_floats() {
            return match at.len() {
                1 => self.filtered::<1>(at, layer),
                2 => self.filtered::<2>(at, layer),
                _ => self.filtered::<3>(at, layer),
            };
        }
        let mut index = [0, 0, layer];
        for (axis, &coordinate) in at.iter().enumerate() {
            match self.nearest(axis, coordinate) {
                Some(i) => index[axis] = i,
                None => return self.border(),
            }
        }
        self.texel(index[0], index[1], index[2])
    }

    #[inline(always)]
    fn filtered<const AXES: usize>(&self, at: &[f32], layer: u32) -> [u32; 4] {
        let spans: [Span; AXES] = std::array::from_fn(|axis| self.span(axis, at[axis]));
        let mut sums = [0f64; 4];
        for corner in 0..1usize << AXES {
            let (mut weight, mut index) = (1, [Some(0), Some(0), Some(layer)]);
            for (axis, span) in spans.iter().enumerate() {
                let second = corner >> axis & 1;
                weight *= if second == 1 { span.weight } else { STEPS - span.weight };
                index[axis] = span.texels[second];
            }
            if weight == 0 {
                continue;
            }
            let words = match index {
                [Some(x), Some(y), Some(z)] => self.texel(x, y, z),
                _ => self.border(),
            };
            for (sum, word) in sums.iter_mut().zip(words) {
                *sum += weight as f64 * f64::from(f32::from_bits(word));
            }
        }
        let unit = 1.0 / STEPS.pow(AXES as u32) as f64;
        sums.map(|sum| ((sum * unit) as f32).to_bits())
    }

    /// `tex` with integer coordinates: no filter and no address mode; 0 outside the image.
    pub fn fetch(&self, at: &[i32], layer: u32) -> [u32; 4] {
        let mut index = [0, 0, layer.min(self.texels.depth - 1)];
        for (axis, &coordinate) in at.iter().enumerate() {
            match u32::try_from(coordinate) {
                Ok(i) if i < self.sizes()[axis] => index[axis] = i,
                _ => return [0; 4],
            }
        }
        self.texel(index[0], index[1], index[2])
    }

    /// `tld4.2d`: one channel of the four texels that a bilinear filter would read, counter-clockwise from the lower left, the
    /// second axis pointing down.
    pub fn gather(&self, channel: usize, at: [f32; 2]) -> [u32; 4] {
        let (columns, rows) = (self.span(0, at[0]).texels, self.span(1, at[1]).texels);
        [(0, 1), (1, 1), (1, 0), (0, 0)].map(|(column, row)| match (columns[column], rows[row]) {
            (Some(x), Some(y)) => self.texel(x, y, 0)[channel],
            _ => self.border()[channel],
        })
    }
}
