//! Which thumbnail a request gets. Sizes are normalized, so that nobody can fill the disk and the
//! processor by asking for every size there is; a normalized size is never below the one asked for,
//! except above the largest.

/// How a thumbnail is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// The requested aspect, cut from the middle.
    Crop,
    /// The original's aspect, within the requested box.
    Scale,
}

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThumbnailRequest {
    /// The desired width in pixels, positive.
    pub width: u32,
    /// The desired height in pixels, positive.
    pub height: u32,
    /// How it is cut.
    pub method: Method,
    /// Whether a moving picture would be welcome. We make none; see [`Target::may_move`].
    pub animated: bool,
}

/// The boxes of scaled thumbnails: the specification's, small ones for avatars, and a large one for
/// dense screens.
const SCALED: [(u32, u32); 6] = [
    (32, 32),
    (96, 96),
    (320, 240),
    (640, 480),
    (800, 600),
    (1600, 1200),
];

/// The longer sides of cropped thumbnails.
const CROPPED_SIDES: [u32; 6] = [32, 96, 320, 640, 800, 1600];

/// The aspects of cropped thumbnails; the nearest one is taken.
const CROPPED_ASPECTS: [(u32, u32); 11] = [
    (1, 1),
    (4, 3),
    (3, 4),
    (3, 2),
    (2, 3),
    (16, 9),
    (9, 16),
    (2, 1),
    (1, 2),
    (3, 1),
    (1, 3),
];

/// A normalized request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub width: u32,
    pub height: u32,
    pub method: Method,
    /// Whether an original that moves may be given unchanged.
    pub may_move: bool,
}

/// What is to be done with a picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Plan {
    /// The part of the source that is used: left, top, width, height.
    pub source: (f64, f64, f64, f64),
    pub width: u32,
    pub height: u32,
}

impl ThumbnailRequest {
    pub(crate) fn normalized(self) -> Target {
        let (width, height) = match self.method {
            Method::Scale => scaled_box(self.width, self.height),
            Method::Crop => cropped_box(self.width, self.height),
        };
        Target {
            width,
            height,
            method: self.method,
            may_move: self.animated,
        }
    }
}

fn covers(size: (u32, u32), width: u32, height: u32) -> bool {
    size.0 >= width && size.1 >= height
}

fn scaled_box(width: u32, height: u32) -> (u32, u32) {
    let fitting = SCALED.into_iter().find(|size| covers(*size, width, height));
    fitting.unwrap_or(SCALED[SCALED.len() - 1])
}

fn cropped_box(width: u32, height: u32) -> (u32, u32) {
    let wanted = (f64::from(width) / f64::from(height)).ln();
    let distance = |aspect: &(u32, u32)| (wanted - (f64::from(aspect.0) / f64::from(aspect.1)).ln()).abs();
    let nearest = CROPPED_ASPECTS
        .into_iter()
        .min_by(|a, b| distance(a).total_cmp(&distance(b)));
    let (across, down) = nearest.unwrap_or((1, 1));
    let longer = across.max(down);
    let sizes = CROPPED_SIDES.map(|side| ((side * across).div_ceil(longer), (side * down).div_ceil(longer)));
    let fitting = sizes.into_iter().find(|size| covers(*size, width, height));
    fitting.unwrap_or(sizes[sizes.len() - 1])
}

impl Target {
    /// The part of a file name that tells this thumbnail from others of the same picture.
    pub fn name(&self) -> String {
        let method = match self.method {
            Method::Crop => "crop",
            Method::Scale => "scale",
        };
        let moving = if self.may_move { "-animated" } else { "" };
        format!("{}x{}-{method}{moving}", self.width, self.height)
    }

    /// The same for a picture that is stored lying on its side.
    pub fn turned(self) -> Self {
        Self {
            width: self.height,
            height: self.width,
            ..self
        }
    }

    /// What to do with a picture of this size; None if it is right as it is. Never larger than the
    /// picture.
    pub fn plan(&self, width: u32, height: u32) -> Option<Plan> {
        let (w, h) = (f64::from(width), f64::from(height));
        let (box_w, box_h) = (f64::from(self.width), f64::from(self.height));
        let source = match self.method {
            Method::Scale => (0.0, 0.0, w, h),
            Method::Crop => {
                let part = (box_w / box_h).min(w / h);
                let (part_w, part_h) = if part * h <= w && part == box_w / box_h {
                    (h * part, h)
                } else {
                    (w, (w * box_h / box_w).min(h))
                };
                ((w - part_w) / 2.0, (h - part_h) / 2.0, part_w, part_h)
            }
        };
        let factor = (box_w / source.2).min(box_h / source.3).min(1.0);
        let pixels = |length: f64, most: u32| ((length * factor).round() as u32).clamp(1, most);
        let (out_w, out_h) = (pixels(source.2, width), pixels(source.3, height));
        let plan = Plan {
            source,
            width: out_w,
            height: out_h,
        };
        (out_w < width || out_h < height).then_some(plan)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn target(width: u32, height: u32, method: Method) -> Target {
        ThumbnailRequest {
            width,
            height,
            method,
            animated: false,
        }
        .normalized()
    }

    #[test]
    fn requests_are_normalized() {
        for (width, height, method, expected) in [
            (32, 32, Method::Crop, (32, 32)),
            (40, 40, Method::Crop, (96, 96)),
            (97, 97, Method::Crop, (320, 320)),
            (100, 75, Method::Crop, (320, 240)),
            (1000, 10, Method::Crop, (1600, 534)),
            (5000, 5000, Method::Crop, (1600, 1600)),
            (32, 32, Method::Scale, (32, 32)),
            (33, 10, Method::Scale, (96, 96)),
            (320, 240, Method::Scale, (320, 240)),
            (240, 320, Method::Scale, (640, 480)),
            (800, 600, Method::Scale, (800, 600)),
            (801, 1, Method::Scale, (1600, 1200)),
            (u32::MAX, u32::MAX, Method::Scale, (1600, 1200)),
        ] {
            let got = target(width, height, method);
            assert_eq!((got.width, got.height), expected, "{width}x{height} {method:?}");
        }
    }

    #[test]
    fn plans() {
        let size =
            |width, height, target: Target| target.plan(width, height).map(|plan| (plan.width, plan.height));
        let scale = target(800, 600, Method::Scale);
        assert_eq!(size(1600, 1200, scale), Some((800, 600)));
        assert_eq!(size(1600, 100, scale), Some((800, 50)));
        assert_eq!(size(10, 6000, scale), Some((1, 600)));
        assert_eq!(size(800, 600, scale), None);
        assert_eq!(size(20, 20, scale), None);
        let crop = target(96, 96, Method::Crop);
        assert_eq!(size(200, 100, crop), Some((96, 96)));
        assert_eq!(size(200, 50, crop), Some((50, 50)));
        assert_eq!(size(96, 96, crop), None);
        assert_eq!(size(50, 50, crop), None);
    }

    proptest! {
        #[test]
        fn a_plan_never_enlarges_and_stays_inside(
            width in 1_u32..5000, height in 1_u32..5000,
            wanted_width in 1_u32..3000, wanted_height in 1_u32..3000, crop in any::<bool>(),
        ) {
            let method = if crop { Method::Crop } else { Method::Scale };
            let target = target(wanted_width, wanted_height, method);
            if let Some(plan) = target.plan(width, height) {
                prop_assert!(plan.width >= 1 && plan.width <= width && plan.width <= target.width);
                prop_assert!(plan.height >= 1 && plan.height <= height && plan.height <= target.height);
                let (left, top, w, h) = plan.source;
                prop_assert!(left >= 0.0 && top >= 0.0 && w > 0.0 && h > 0.0);
                prop_assert!(left + w <= f64::from(width) + 1e-6);
                prop_assert!(top + h <= f64::from(height) + 1e-6);
            }
        }

        #[test]
        fn the_number_of_sizes_is_bounded(width in 1_u32..u32::MAX, height in 1_u32..u32::MAX) {
            let scaled = target(width, height, Method::Scale);
            prop_assert!(SCALED.contains(&(scaled.width, scaled.height)));
            let cropped = target(width, height, Method::Crop);
            prop_assert!(CROPPED_SIDES.contains(&cropped.width.max(cropped.height)));
        }
    }
}
