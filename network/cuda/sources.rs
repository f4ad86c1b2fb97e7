//! The kernels of a network, without a device to load them.

use super::{
    device::{Kernel, Source},
    launches::Loaded,
    memory::Memory,
    plan::Plan,
    step::{Purpose, launches},
};
use crate::Result;

/// All that the trainings of a plan load, in the order in which they are wanted, and the most shared memory that one of
/// their launches takes, in bytes.
pub(super) fn wanted(plan: &Plan, memory: &Memory) -> Result<(Vec<Source>, u32)> {
    let (mut sources, mut kernels, mut loaded, mut shared) = (Vec::new(), 0, Loaded::default(), 0);
    for purpose in [Purpose::Step, Purpose::Predict, Purpose::Pack] {
        let load = &mut |source: &Source| {
            sources.push(source.clone());
            let first = kernels;
            kernels += source.kernels.len();
            Ok((first..kernels).map(Kernel).collect())
        };
        let launches = launches(load, &mut loaded, (plan, memory), purpose, plan.batch)?;
        shared = launches.iter().map(|launch| launch.shared).fold(shared, u32::max);
    }
    Ok((sources, shared))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::{arch::Variant, cuda::device::Address, mode::Mode, support::spec, trainer::TrainSpec};

    /// All that trainings like `spec` load, for `classes` classes, in the order in which they are wanted, on a device
    /// with `tensor_cores`.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) where the engine does not cover the network.
    pub(in crate::cuda) fn sources(
        spec: &TrainSpec,
        classes: usize,
        tensor_cores: bool,
    ) -> Result<Vec<Source>> {
        let plan = Plan::new(spec, 1, classes, 1, tensor_cores)?;
        let memory = Memory::new(&plan, &mut |_| Ok(Address(256)))?; // something, where a buffer is no nothing
        Ok(wanted(&plan, &memory)?.0)
    }

    fn names(arch: &str, mode: Mode) -> Vec<&'static str> {
        let sources = sources(&spec(arch, Variant::Paper, mode, 128), 10, true).unwrap();
        for (i, source) in sources.iter().enumerate() {
            assert!(!sources[..i].contains(source), "{} {:?} twice", source.name, source.defines);
            assert!(source.kernels.iter().all(|kernel| source.text.contains(&format!("{kernel}("))));
        }
        sources.iter().map(|source| source.name).collect()
    }

    #[test]
    fn deeper_networks_of_one_shape_load_the_same_kernels() {
        let [shallow, deep] = ["resnet14", "resnet866"].map(|arch| names(arch, Mode::Bn));
        assert_eq!(shallow, deep);
        assert!(!shallow.contains(&"filters.cu") && names("resnet14", Mode::All).contains(&"filters.cu"));
        assert!(names("vgg16", Mode::Random).contains(&"positions.cu"));
    }
}
