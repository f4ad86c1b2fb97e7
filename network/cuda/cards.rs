//! NVIDIA's driver and the cards that it shows, and what its errors mean. Every other use of the driver
//! comes after [`look`]: where the library is missing, cudarc's functions panic. Knows no kernel and no
//! memory.
#![allow(unsafe_code)] // asks a C library

use cudarc::driver::{
    DriverError, result,
    sys::{self, CUdevice_attribute as Attribute, CUresult},
};

use super::nvrtc::{Nvrtc, Places};
use crate::{Error, Result};

/// The oldest driver whose functions are used, as it tells its version.
const OLDEST: i32 = 12000;

/// The driver, and what it shows of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Driver {
    /// Newest version of CUDA that it can serve: major and minor.
    pub cuda: [u32; 2],
    /// The cards, in its order; those that `CUDA_VISIBLE_DEVICES` hides are not among them.
    pub cards: Vec<CardInfo>,
    /// How many more there are, and cannot be asked.
    pub silent: usize,
}

/// A card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CardInfo {
    /// `NVIDIA H100 80GB HBM3`.
    pub name: String,
    /// Bytes in all.
    pub memory: u64,
    /// Compute capability: major and minor.
    pub capability: [u32; 2],
    /// Bytes of shared memory that a block may have.
    pub shared: u32,
}

impl Driver {
    /// The compiler for the first card.
    ///
    /// # Errors
    /// Where there is none that the driver and the card go with.
    pub fn compiler(&self, places: &Places) -> Result<Nvrtc> {
        Nvrtc::find(places, Some(self.cuda[0]), self.cards.first().map(|card| card.capability))
    }
}

impl CardInfo {
    /// The name of its instruction set: `sm_90`.
    pub fn arch(&self) -> String {
        format!("sm_{}{}", self.capability[0], self.capability[1])
    }
}

/// Is there a driver? Says nothing of cards.
pub fn has_driver() -> bool {
    // SAFETY: opens and closes the driver's library, whose initialisers have no preconditions.
    unsafe { sys::is_culib_present() }
}

/// Is there a card? No where nothing speaks for one.
///
/// # Errors
/// Where there is a driver that should show one, and cannot: why.
pub fn any() -> Result<bool> {
    seen().map(|driver| driver.is_some())
}

fn seen() -> Result<Option<Driver>> {
    if !has_driver() || result::init() == Err(DriverError(CUresult::CUDA_ERROR_NO_DEVICE)) {
        return Ok(None);
    }
    look().map(Some)
}

/// Is there a card, and a compiler for it?
///
/// # Errors
/// As [`any`], and where there is a card that nothing can be compiled for.
pub fn usable(places: &Places) -> Result<bool> {
    seen()?.map_or(Ok(false), |driver| driver.compiler(places).map(|_| true))
}

/// Asks the driver, if there is one; fails where it is missing, too old or shows no card.
pub fn look() -> Result<Driver> {
    if !has_driver() {
        return Err(Error::Device(
            "no CUDA driver was found (`libcuda.so.1`); install NVIDIA's driver, or start the container with its GPUs"
                .into(),
        ));
    }
    let failed = |error| explain("the CUDA driver did not start", error);
    result::init().map_err(failed)?;
    let cuda = serves(version().map_err(failed)?)?;
    let count = result::device::get_count().map_err(failed)?;
    let mut cards = (0..count).map(card);
    // The first is the one that is used; a broken one beside it need not be in its way.
    let first = cards.next().unwrap_or(Err(DriverError(CUresult::CUDA_ERROR_NO_DEVICE)));
    let first = first.map_err(|error| explain("cannot ask the first card", error))?;
    let cards: Vec<_> = std::iter::once(first).chain(cards.flatten()).collect();
    let silent = usize::try_from(count).unwrap_or(0) - cards.len();
    Ok(Driver { cuda, cards, silent })
}

/// The major version of CUDA that the driver serves, also where it shows no card; nothing without one.
pub fn newest() -> Option<u32> {
    has_driver().then(version)?.ok().and_then(|version| serves(version).ok()).map(|[major, _]| major)
}

/// As the driver tells its version, which there must be; it need not have been started.
fn version() -> Result<i32, DriverError> {
    let mut version = 0;
    // SAFETY: writes one number.
    unsafe { sys::cuDriverGetVersion(&raw mut version) }.result().map(|()| version)
}

/// The version of CUDA, major and minor, that a driver of this `version` serves; fails where that is too old.
fn serves(version: i32) -> Result<[u32; 2]> {
    let [major, minor] = [version / 1000, version % 1000 / 10].map(i32::cast_unsigned);
    if version < OLDEST {
        return Err(Error::Device(format!(
            "the driver is for CUDA {major}.{minor}, and 12.0 is the oldest that is supported; update the driver"
        )));
    }
    Ok([major, minor])
}

fn card(ordinal: i32) -> Result<CardInfo, DriverError> {
    let device = result::device::get(ordinal)?;
    let attribute = |attribute| {
        // SAFETY: the driver gave the device.
        unsafe { result::device::get_attribute(device, attribute) }.map(i32::cast_unsigned)
    };
    Ok(CardInfo {
        name: result::device::get_name(device)?,
        // SAFETY: likewise.
        memory: unsafe { result::device::total_mem(device) }? as u64,
        capability: [
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        ],
        shared: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
    })
}

/// The driver's error as a sentence; `what` says what failed.
pub(super) fn explain(what: &str, error: DriverError) -> Error {
    let words = error.error_string().map_or_else(|_| "".into(), |words| words.to_string_lossy().into_owned());
    Error::Device(sentence(what, error.0, &words))
}

/// The same of an error's code and the driver's words for it.
pub(super) fn sentence(what: &str, code: CUresult, words: &str) -> String {
    use CUresult as C;
    let advice = match code {
        C::CUDA_ERROR_NO_DEVICE => {
            "the driver shows no card; look at `CUDA_VISIBLE_DEVICES` and at what `nvidia-smi` lists"
        }
        C::CUDA_ERROR_SYSTEM_NOT_READY => {
            "start NVIDIA's fabric manager (`systemctl start nvidia-fabricmanager`), whose version must be the driver's"
        }
        C::CUDA_ERROR_STUB_LIBRARY => {
            "`libcuda.so` is a stub to link with; put the driver's own first in the loader's path"
        }
        C::CUDA_ERROR_SYSTEM_DRIVER_MISMATCH | C::CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE => {
            "the driver's library and its kernel module differ; restart after the update, or leave `cuda-compat` out of the loader's path"
        }
        C::CUDA_ERROR_NO_BINARY_FOR_GPU
        | C::CUDA_ERROR_INVALID_IMAGE
        | C::CUDA_ERROR_UNSUPPORTED_PTX_VERSION
        | C::CUDA_ERROR_INVALID_SOURCE => {
            "the driver does not take what NVRTC made; update the driver, or use an NVRTC of its CUDA version"
        }
        C::CUDA_ERROR_OUT_OF_MEMORY => {
            "lower `batch`, or end what else uses the card (`nvidia-smi` lists it)"
        }
        C::CUDA_ERROR_ILLEGAL_ADDRESS
        | C::CUDA_ERROR_MISALIGNED_ADDRESS
        | C::CUDA_ERROR_ILLEGAL_INSTRUCTION
        | C::CUDA_ERROR_INVALID_ADDRESS_SPACE
        | C::CUDA_ERROR_INVALID_PC
        | C::CUDA_ERROR_ASSERT => {
            "a kernel did what it must not, which is a bug; run it under `compute-sanitizer` and report what that says"
        }
        C::CUDA_ERROR_LAUNCH_TIMEOUT => {
            "the driver ended a kernel that ran longer than a card with a display may; use a card that drives no display (`CUDA_VISIBLE_DEVICES` chooses), then run again"
        }
        C::CUDA_ERROR_ECC_UNCORRECTABLE
        | C::CUDA_ERROR_NVLINK_UNCORRECTABLE
        | C::CUDA_ERROR_HARDWARE_STACK_ERROR
        | C::CUDA_ERROR_LAUNCH_FAILED
        | C::CUDA_ERROR_DEVICE_UNAVAILABLE
        | C::CUDA_ERROR_EXTERNAL_DEVICE
        | C::CUDA_ERROR_UNKNOWN => {
            "the card was lost or another program holds it; see `nvidia-smi` and the kernel's log, then run again: a training goes on from where it was saved last, after an epoch or, alone, within one"
        }
        _ => "see what `nvidia-smi` says of the card",
    };
    let name = format!("{code:?}");
    let words = if words.is_empty() { name } else { format!("{words} ({name})") };
    format!("{what}: {words}; {advice}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_failed_and_what_to_do() {
        let lost = sentence("cannot run a step", CUresult::CUDA_ERROR_ECC_UNCORRECTABLE, "ecc");
        assert!(lost.starts_with("cannot run a step: ecc (CUDA_ERROR_ECC_UNCORRECTABLE); "), "{lost}");
        assert!(lost.contains("goes on from where it was saved last"), "{lost}");
        let hidden = sentence("x", CUresult::CUDA_ERROR_NO_DEVICE, "");
        assert!(hidden.contains("`CUDA_VISIBLE_DEVICES`"), "{hidden}");
        let slow = sentence("x", CUresult::CUDA_ERROR_LAUNCH_TIMEOUT, "");
        assert!(slow.contains("a card that drives no display"), "{slow}");
    }

    #[test]
    fn a_driver_that_is_too_old_is_refused_with_its_version() {
        assert_eq!(serves(12000).unwrap(), [12, 0]);
        assert_eq!(serves(13010).unwrap(), [13, 1]);
        for (version, told) in [(11080, "CUDA 11.8,"), (10020, "CUDA 10.2,")] {
            let refused = serves(version).unwrap_err().to_string();
            assert!(refused.contains(told) && refused.ends_with("; update the driver"), "{refused}");
        }
    }

    /// On a machine with cards it lists them; on any other it is an error and no panic.
    #[test]
    fn looking_never_panics() {
        assert!(newest().is_none_or(|major| major >= 12));
        match look() {
            Ok(driver) => assert!(driver.cards.iter().all(|card| card.memory > 0 && card.capability[0] > 0)),
            Err(error) => assert!(error.to_string().contains(';'), "a way out is missing: {error}"),
        }
    }
}
