//! A smaller dataset with the same share of every class. Knows nothing of where images come from.
//!
//! Which images of a class remain is the beginning of a random order of them, from the stream
//! `subset SPLIT CLASS` of `subset_seed`: so a larger subset contains every smaller one, and adding a
//! class changes nothing for the others. The images kept stay in their order.

use engine::kind::StageError;
use network::{rng::stream, trainer::Split};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How much of a dataset to keep.
#[derive(Serialize, Deserialize, JsonSchema)]
pub(super) struct Subset {
    /// Keep this many training images of each class; all by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    train_per_class: Option<u32>,
    /// Keep this many test images of each class; all by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    test_per_class: Option<u32>,
    /// Decides which images are kept.
    #[serde(default)]
    subset_seed: u64,
}

impl Subset {
    /// Which of the `count` images of `class` to keep: indices, ascending.
    pub(super) fn keep(&self, split: Split, class: &str, count: usize) -> Result<Vec<usize>, StageError> {
        let (name, wanted) = match split {
            Split::Train => ("train", self.train_per_class),
            Split::Test => ("test", self.test_per_class),
        };
        let Some(wanted) = wanted else { return Ok((0..count).collect()) };
        let wanted = wanted as usize;
        if wanted == 0 || wanted > count {
            let message = format!(
                "`{name}_per_class = {wanted}`, but class `{class}` has {count} {name} image{}",
                if count == 1 { "" } else { "s" }
            );
            let hint = if count == 0 {
                format!("leave `{name}_per_class` out, or give the class images")
            } else {
                format!("choose from 1 to {count}, or leave it out")
            };
            return Err(StageError::new(message).hint(hint));
        }
        let order = stream(self.subset_seed, &format!("subset {name} {class}")).permutation(count);
        let mut kept: Vec<usize> = order.into_iter().take(wanted).map(|index| index as usize).collect();
        kept.sort_unstable();
        Ok(kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_without_images_is_told_another_way_out() {
        let hint = |count: usize| {
            let subset = Subset { train_per_class: None, test_per_class: Some(3), subset_seed: 0 };
            subset.keep(Split::Test, "ant", count).unwrap_err().hint.unwrap()
        };
        assert_eq!(hint(0), "leave `test_per_class` out, or give the class images");
        assert_eq!(hint(2), "choose from 1 to 2, or leave it out");
    }

    /// As an implementation in another language has them.
    #[test]
    fn which_images_are_kept_is_pinned() {
        let kept = |split: Split, class: &str, subset_seed: u64| {
            let subset = Subset { train_per_class: Some(3), test_per_class: Some(3), subset_seed };
            subset.keep(split, class, 10).unwrap()
        };
        assert_eq!(kept(Split::Train, "ant", 0), [0, 5, 6]);
        assert_eq!(kept(Split::Train, "cat", 0), [4, 6, 9]);
        assert_eq!(kept(Split::Test, "ant", 0), [3, 5, 9]);
        assert_eq!(kept(Split::Train, "ant", 1), [0, 1, 2]);
    }
}
