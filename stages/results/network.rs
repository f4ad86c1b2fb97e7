//! Networks by name: how they are written, and which family of the paper they belong to. Knows no
//! weights: a name that it does not understand is a network of its own.

/// Networks that differ in one thing only, and stand side by side in a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Family {
    /// ResNet-N.
    Depth,
    /// ResNet-N-W of one N.
    Width,
    /// VGG-N.
    Vgg,
    /// Anything else.
    Other,
}

impl Family {
    /// All of them, in the order of the figures.
    pub(crate) const ALL: [Self; 4] = [Self::Depth, Self::Width, Self::Vgg, Self::Other];

    /// In the name of a figure: `accuracy-by-depth`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Depth => "depth",
            Self::Width => "width",
            Self::Vgg => "vgg",
            Self::Other => "network",
        }
    }

    /// Under the axis on which its networks stand.
    pub(crate) fn axis(self) -> &'static str {
        match self {
            Self::Depth => "depth of the ResNet (layers, not to scale)",
            Self::Width => "ResNet, depth-width (width as a multiple of 16 channels)",
            Self::Vgg => "depth of the VGG network (layers)",
            Self::Other => "network",
        }
    }
}

/// A network's name, taken apart; ordered by family, depth, width.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Network {
    kind: Family,
    depth: u32,
    width: u32,
    name: String,
}

impl Network {
    /// `resnet32`, `resnet14-8`, `vgg11`, or any other name.
    pub(crate) fn new(name: &str) -> Self {
        let resnet = name.strip_prefix("resnet").and_then(|rest| {
            let (depth, width) = rest.split_once('-').map_or((rest, "1"), |(depth, width)| (depth, width));
            Some((Family::Depth, depth.parse().ok()?, width.parse().ok()?))
        });
        let vgg = || Some((Family::Vgg, name.strip_prefix("vgg")?.parse().ok()?, 1));
        let (kind, depth, width) = resnet.or_else(vgg).unwrap_or((Family::Other, 0, 0));
        let kind = if width > 1 { Family::Width } else { kind };
        Self { kind, depth, width, name: name.to_owned() }
    }

    /// As pipeline files write it.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// As people write it.
    pub(crate) fn label(&self) -> String {
        match (self.kind, self.width) {
            (Family::Depth | Family::Width, 1) => format!("ResNet-{}", self.depth),
            (Family::Depth | Family::Width, width) => format!("ResNet-{}-{width}", self.depth),
            (Family::Vgg, _) => format!("VGG-{}", self.depth),
            (Family::Other, _) => self.name.clone(),
        }
    }

    /// Depth in layers, and width; 0 of one that it does not know.
    pub(crate) fn size(&self) -> [u32; 2] {
        [self.depth, self.width]
    }

    /// On the axis of `family`; nothing where it does not belong. ResNet-N is the narrowest of the
    /// ResNets-N-W too.
    pub(crate) fn tick(&self, family: Family) -> Option<String> {
        match (family, self.kind) {
            (Family::Depth, Family::Depth) | (Family::Vgg, Family::Vgg) => Some(self.depth.to_string()),
            (Family::Width, Family::Width) => Some(format!("{}-{}", self.depth, self.width)),
            (Family::Width, Family::Depth) => Some(format!("{}-1", self.depth)),
            (Family::Other, Family::Other) => Some(self.name.clone()),
            _ => None,
        }
    }

    /// Is `family` its own, and not one that it merely opens?
    pub(crate) fn of(&self, family: Family) -> bool {
        self.kind == family
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_stand_in_order_of_depth_and_width() {
        let mut networks =
            ["vgg11", "mine", "resnet14-8", "resnet110", "resnet14-1", "resnet20"].map(Network::new);
        networks.sort();
        let labels = networks.each_ref().map(Network::label);
        assert_eq!(labels, ["ResNet-14", "ResNet-20", "ResNet-110", "ResNet-14-8", "VGG-11", "mine"]);
        assert_eq!(networks[0].tick(Family::Width).as_deref(), Some("14-1"));
        assert_eq!(networks[1].tick(Family::Width).as_deref(), Some("20-1"));
        assert_eq!(networks[3].tick(Family::Depth), None);
    }
}
