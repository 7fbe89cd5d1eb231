//! The text form of a sketch.
//!
//! Base64 (the URL alphabet, without padding) of: a version byte; and unless the sketch is empty, the level, the zeros, sum, min and max, and for each sign
//! the number of buckets and the buckets in ascending order. Integers are LEB128 (7 bits a byte, lowest first), doubles
//! eight bytes, lowest first. A bucket is its count, doubled, plus one if a gap comes before it; then the gap's
//! length. The first bucket's gap is its index, zigzag.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use super::sketch::{MAX_BUCKETS, MAX_INDEX, MAX_LEVEL, ParseSketchError, Sketch, bucket_of};

const VERSION: u8 = 1;
/// Counts are doubled when they are written.
const MAX_COUNT: u64 = u64::MAX / 2;

pub(super) fn encode(sketch: &Sketch) -> String {
    let mut bytes = vec![VERSION];
    if !sketch.is_empty() {
        put(&mut bytes, sketch.level.into());
        put(&mut bytes, sketch.zeros.min(MAX_COUNT));
        for number in [sketch.sum, sketch.min, sketch.max] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        put_side(&mut bytes, &sketch.positive);
        put_side(&mut bytes, &sketch.negative);
    }
    URL_SAFE_NO_PAD.encode(bytes)
}

fn put(bytes: &mut Vec<u8>, mut number: u64) {
    loop {
        let [low, ..] = number.to_le_bytes();
        number >>= 7;
        if number == 0 {
            return bytes.push(low);
        }
        bytes.push(low | 0x80);
    }
}

fn put_side(bytes: &mut Vec<u8>, side: &BTreeMap<i64, u64>) {
    put(bytes, side.len() as u64);
    let mut before = None;
    for (index, count) in side {
        let gap = before.map(|before: i64| index.abs_diff(before) - 1);
        put(bytes, (*count).min(MAX_COUNT) << 1 | u64::from(gap != Some(0)));
        match gap {
            None => put(bytes, (index << 1 ^ index >> 63).cast_unsigned()),
            Some(0) => {}
            Some(gap) => put(bytes, gap),
        }
        before = Some(*index);
    }
}

/// Errors: anything that [`encode`] does not write. What is accepted keeps all bounds of a sketch.
pub(super) fn decode(text: &str) -> Result<Sketch, ParseSketchError> {
    if text.len() > Sketch::MAX_TEXT_BYTES {
        return Err(ParseSketchError("it is too long"));
    }
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| ParseSketchError("it is not base64"))?;
    let (version, rest) = bytes.split_first().ok_or(ParseSketchError("it is empty"))?;
    if *version != VERSION {
        return Err(ParseSketchError("its version is unknown"));
    }
    if rest.is_empty() {
        return Ok(Sketch::default());
    }
    let mut reader = Reader(rest);
    let level = u32::try_from(reader.number()?).ok().filter(|level| *level <= MAX_LEVEL);
    let level = level.ok_or(ParseSketchError("its level is out of range"))?;
    let zeros = reader.number()?;
    let [sum, min, max] = [reader.double()?, reader.double()?, reader.double()?];
    let positive = reader.side(level)?;
    let negative = reader.side(level)?;
    if !reader.0.is_empty() {
        return Err(ParseSketchError("something follows it"));
    }
    let sketch = Sketch { level, zeros, positive, negative, sum, min, max };
    check(&sketch)?;
    Ok(sketch)
}

fn check(sketch: &Sketch) -> Result<(), ParseSketchError> {
    if sketch.buckets() > MAX_BUCKETS {
        return Err(ParseSketchError("it has too many buckets"));
    }
    if sketch.is_empty() {
        return Err(ParseSketchError("it counts nothing"));
    }
    if sketch.min > sketch.max {
        return Err(ParseSketchError("its minimum is above its maximum"));
    }
    // The extremes are what the outermost buckets were made of.
    let lowest = sketch.negative.keys().next_back().map(|index| (-1, Some(*index)));
    let highest = sketch.positive.keys().next_back().map(|index| (1, Some(*index)));
    let zero = (sketch.zeros > 0).then_some((0, None));
    let first = lowest.or(zero).or_else(|| sketch.positive.keys().next().map(|index| (1, Some(*index))));
    let last = highest.or(zero).or_else(|| sketch.negative.keys().next().map(|index| (-1, Some(*index))));
    let place = |value: f64| (if value > 0.0 { 1 } else { -i32::from(value < 0.0) }, bucket_of(value, sketch.level));
    if first != Some(place(sketch.min)) || last != Some(place(sketch.max)) {
        return Err(ParseSketchError("its minimum or maximum is not in its outermost buckets"));
    }
    Ok(())
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn byte(&mut self) -> Result<u8, ParseSketchError> {
        let (first, rest) = self.0.split_first().ok_or(ParseSketchError("it ends too early"))?;
        self.0 = rest;
        Ok(*first)
    }

    fn number(&mut self) -> Result<u64, ParseSketchError> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            let shifted = bits << shift;
            if shifted >> shift != bits {
                return Err(ParseSketchError("a number is too large"));
            }
            number |= shifted;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(ParseSketchError("a number is too large"))
    }

    fn double(&mut self) -> Result<f64, ParseSketchError> {
        let (first, rest) = self.0.split_first_chunk().ok_or(ParseSketchError("it ends too early"))?;
        self.0 = rest;
        let double = f64::from_le_bytes(*first);
        if double.is_finite() { Ok(double) } else { Err(ParseSketchError("a number is not finite")) }
    }

    fn side(&mut self, level: u32) -> Result<BTreeMap<i64, u64>, ParseSketchError> {
        let out_of_range = ParseSketchError("a bucket is out of range");
        let buckets = self.number()?;
        if buckets > MAX_BUCKETS as u64 {
            return Err(ParseSketchError("it has too many buckets"));
        }
        let mut side = BTreeMap::new();
        let mut before = None;
        for _ in 0..buckets {
            let head = self.number()?;
            let gap = if head & 1 == 1 { Some(self.number()?) } else { None };
            let index = match (before, gap) {
                (None, Some(zigzag)) => (zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed(),
                (None, None) => return Err(ParseSketchError("its first bucket has no index")),
                (Some(before), gap) => {
                    let gap = i64::try_from(gap.unwrap_or_default()).map_err(|_| out_of_range)?;
                    gap.checked_add(before).and_then(|index: i64| index.checked_add(1)).ok_or(out_of_range)?
                }
            };
            if index.unsigned_abs() > (MAX_INDEX >> level).unsigned_abs() + 1 {
                return Err(out_of_range);
            }
            if head >> 1 == 0 {
                return Err(ParseSketchError("a bucket counts nothing"));
            }
            side.insert(index, head >> 1);
            before = Some(index);
        }
        Ok(side)
    }
}
