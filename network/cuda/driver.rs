//! A card, through cudarc: one context, one stream, memory that is freed with it, kernels compiled by
//! NVRTC or found compiled, graphs captured from launches. Copies must lie within memory that was
//! allocated here; what a kernel does with its pointers is the kernel's affair. Knows no network.
#![allow(unsafe_code)] // copies to checked addresses, launches of kernels

use std::{collections::BTreeMap, ffi::c_void, ptr::null_mut, sync::Arc};

use blake3::Hash;
use cudarc::{
    driver::{
        CudaContext, CudaFunction, CudaGraph, CudaSlice, CudaStream, DevicePtr as _, DriverError,
        PinnedHostSlice, result,
        sys::{
            self, CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES as MAX_SHARED,
            CUgraphInstantiate_flags, CUlaunchAttribute,
            CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION as EARLY,
            CUlaunchAttributeValue, CUlaunchConfig, CUresult,
            CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL,
        },
    },
    nvrtc::Ptx,
};

use super::{
    cards::{explain, look},
    cubins::{self, Cubins},
    device::{Address, Arg, Device, Kernel, Launch, Recording, Source},
    nvrtc::{Nvrtc, OPTIONS, Places},
};
use crate::{Error, Result};

/// Page-locked bytes from which small uploads go: many steps' batches.
const STAGE: usize = 4 << 20;

/// Dynamic shared memory that a kernel may have without being told so.
const SHARED: u32 = 48 << 10;

/// The first card that the driver shows, in use.
pub struct Card {
    graphs: Vec<CudaGraph>,
    kernels: Vec<Loaded>,
    /// By address.
    memory: BTreeMap<u64, CudaSlice<u8>>,
    stage: PinnedHostSlice<u8>,
    /// How much of `stage` copies under way may still read.
    staged: usize,
    stream: Arc<CudaStream>,
    context: Arc<CudaContext>,
    nvrtc: Nvrtc,
    cubins: Cubins,
    arch: String,
    has_tensor_cores: bool,
    /// Bytes of shared memory that a block may have.
    most_shared: u32,
    /// Does it begin launches early that may be?
    begins_early: bool,
    name: String,
}

/// A kernel on the card.
struct Loaded {
    function: CudaFunction,
    name: &'static str,
    /// The most dynamic shared memory that it may have.
    shared: u32,
}

impl Card {
    /// Opens it. Another than the first is chosen by `CUDA_VISIBLE_DEVICES`, which the driver reads.
    pub fn open(places: &Places) -> Result<Self> {
        let driver = look()?;
        let nvrtc = driver.compiler(places)?;
        let card = &driver.cards[0];
        let open = || -> Result<_, DriverError> {
            let context = CudaContext::new(0)?;
            // SAFETY: there is one stream, which puts everything in order by itself.
            unsafe { context.disable_event_tracking() };
            let stream = context.new_stream()?;
            // SAFETY: every byte is written before it is read.
            let stage = unsafe { context.alloc_pinned(STAGE)? };
            Ok((context, stream, stage))
        };
        let (context, stream, stage) =
            open().map_err(|error| explain(&format!("cannot use the {}", card.name), error))?;
        let [major, minor] = driver.cuda;
        let name = format!(
            "{} ({}), driver for CUDA {major}.{minor}, NVRTC {}",
            card.name,
            card.arch(),
            nvrtc.version()
        );
        Ok(Self {
            graphs: Vec::new(),
            kernels: Vec::new(),
            memory: BTreeMap::new(),
            stage,
            staged: 0,
            stream,
            context,
            nvrtc,
            cubins: Cubins::new(places.kernels.clone()),
            arch: card.arch(),
            // The first have others, of f16 alone.
            has_tensor_cores: card.capability[0] >= 8,
            most_shared: card.shared,
            // Graphs know early launches since CUDA 12.3.
            begins_early: !places.in_turn && card.capability[0] >= 9 && driver.cuda >= [12, 3],
            name,
        })
    }

    /// What names the machine code of `source`.
    fn key(&self, source: &Source) -> Hash {
        cubins::key(source, &self.arch, &self.nvrtc.build(), &OPTIONS)
    }

    /// Fails unless `bytes` bytes from `address` on lie in one allocation.
    fn check(&self, address: Address, bytes: usize) -> Result<()> {
        let below = self.memory.range(..=address.0).next_back();
        let inside = below.is_some_and(|(&start, slice)| {
            let end = address.0.checked_add(bytes as u64);
            end.is_some_and(|end| end <= start + slice.len() as u64)
        });
        if inside {
            return Ok(());
        }
        Err(Error::Invalid(format!("{bytes} bytes at {:#x} are not memory of the card", address.0)))
    }

    /// Waits until the card has done all that it was asked to.
    fn wait(&mut self) -> Result<()> {
        self.stream.synchronize().map_err(|error| explain("the card failed at its work", error))?;
        self.staged = 0;
        Ok(())
    }

    /// Lets each kernel have the shared memory that it is started with.
    fn grant(&mut self, launch: &Launch) -> Result<()> {
        let kernel = self
            .kernels
            .get_mut(launch.kernel.0)
            .ok_or_else(|| Error::Invalid(format!("the card has no kernel {}", launch.kernel.0)))?;
        if launch.shared > kernel.shared {
            kernel.function.set_attribute(MAX_SHARED, launch.shared.cast_signed()).map_err(|error| {
                let (name, bytes) = (kernel.name, launch.shared);
                explain(&format!("kernel `{name}` cannot have {bytes} bytes of shared memory"), error)
            })?;
            kernel.shared = launch.shared;
        }
        Ok(())
    }

    /// Puts a kernel that has been granted its memory on the stream.
    fn start(&self, launch: &Launch, early: bool) -> Result<()> {
        let kernel = &self.kernels[launch.kernel.0];
        let mut values: Vec<u64> = launch.args.iter().map(|&arg| bits(arg)).collect();
        let mut args: Vec<*mut c_void> = values.iter_mut().map(|value| (&raw mut *value).cast()).collect();
        let mut value = CUlaunchAttributeValue { pad: [0; 64] };
        value.programmaticStreamSerializationAllowed = 1;
        let mut attribute = CUlaunchAttribute { id: EARLY, pad: [0; 4], value };
        let ([x, y, z], [i, j, k]) = (launch.grid, launch.block);
        let config = CUlaunchConfig {
            gridDimX: x,
            gridDimY: y,
            gridDimZ: z,
            blockDimX: i,
            blockDimY: j,
            blockDimZ: k,
            sharedMemBytes: launch.shared,
            hStream: self.stream.cu_stream(),
            attrs: &raw mut attribute,
            numAttrs: (early && self.begins_early).into(),
        };
        let function = kernel.function.cu_function();
        // SAFETY: the function's module lives as long as `self`; the driver copies as many bytes of each
        // argument as the kernel's parameter has, which are at most eight. What `config` names lives here.
        unsafe { sys::cuLaunchKernelEx(&raw const config, function, args.as_mut_ptr(), null_mut()) }
            .result()
            .map_err(|error| {
                let what = format!(
                    "kernel `{}` did not start ({:?} of {:?})",
                    kernel.name, launch.grid, launch.block
                );
                explain(&what, error)
            })
    }
}

impl Device for Card {
    fn prepare(&mut self, sources: &[Source]) -> Result<()> {
        let wanted: Vec<_> = sources.iter().map(|source| (self.key(source), source)).collect();
        self.cubins.prepare(&wanted, |source| self.nvrtc.compile(source, &self.arch))
    }

    fn load(&mut self, source: &Source) -> Result<Vec<Kernel>> {
        let key = self.key(source);
        let cubin = self.cubins.get(key, || self.nvrtc.compile(source, &self.arch))?;
        let module = self
            .context
            .load_module(Ptx::from_binary(cubin))
            .map_err(|error| explain(&format!("cannot load the kernels of `{}`", source.name), error))?;
        let first = self.kernels.len();
        for &name in &source.kernels {
            let function = module
                .load_function(name)
                .map_err(|error| explain(&format!("`{}` has no kernel `{name}`", source.name), error))?;
            self.kernels.push(Loaded { function, name, shared: SHARED });
        }
        Ok((first..self.kernels.len()).map(Kernel).collect())
    }

    fn alloc(&mut self, bytes: usize) -> Result<Address> {
        let slice = self.stream.alloc_zeros::<u8>(bytes.max(1)).map_err(|error| {
            let free = match self.context.mem_get_info() {
                Ok((free, all)) if error.0 == CUresult::CUDA_ERROR_OUT_OF_MEMORY => {
                    format!(": {} of its {} MiB are free", free >> 20, all >> 20)
                }
                _ => String::new(),
            };
            explain(&format!("the card does not give {} MiB{free}", bytes.div_ceil(1 << 20)), error)
        })?;
        let address = slice.device_ptr(&self.stream).0;
        self.memory.insert(address, slice);
        Ok(Address(address))
    }

    fn upload(&mut self, to: Address, bytes: &[u8]) -> Result<()> {
        self.check(to, bytes.len())?;
        let failed = |error| explain("cannot copy to the card", error);
        let stream = self.stream.cu_stream();
        if bytes.len() > STAGE {
            // SAFETY: the target was checked, and the copy is waited for before `bytes` can go.
            unsafe { result::memcpy_htod_async(to.0, bytes, stream) }.map_err(failed)?;
            return self.wait();
        }
        if self.staged + bytes.len() > STAGE {
            self.wait()?;
        }
        let part = self.staged..self.staged + bytes.len();
        self.staged = part.end;
        let stage = &mut self.stage.as_mut_slice().map_err(failed)?[part];
        stage.copy_from_slice(bytes);
        // SAFETY: the target was checked; this part of the stage is not written again before a `wait`.
        unsafe { result::memcpy_htod_async(to.0, stage, stream) }.map_err(failed)
    }

    fn download(&mut self, from: Address, bytes: &mut [u8]) -> Result<()> {
        self.check(from, bytes.len())?;
        // SAFETY: the source was checked, and the copy is waited for while `bytes` is borrowed.
        let copied = unsafe { result::memcpy_dtoh_async(bytes, from.0, self.stream.cu_stream()) };
        copied.map_err(|error| explain("cannot copy from the card", error))?;
        self.wait()
    }

    fn launch(&mut self, launch: &Launch) -> Result<()> {
        self.grant(launch)?;
        self.start(launch, launch.early)
    }

    fn record(&mut self, launches: &[Launch]) -> Result<Recording> {
        launches.iter().try_for_each(|launch| self.grant(launch))?;
        let failed = |error| explain("cannot record a step as a graph", error);
        self.stream.begin_capture(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).map_err(failed)?;
        // Before the first there is nothing in the graph.
        let mut each = launches.iter().enumerate();
        let started = each.try_for_each(|(i, launch)| self.start(launch, launch.early && i > 0));
        // Also after a failure: the stream would stay in capture.
        let graph = self.stream.end_capture(CUgraphInstantiate_flags(0));
        started?;
        let empty = || Error::Invalid("a graph of no launches".into());
        let graph = graph.map_err(failed)?.ok_or_else(empty)?;
        graph.upload().map_err(failed)?;
        self.graphs.push(graph);
        Ok(Recording(self.graphs.len() - 1))
    }

    fn replay(&mut self, recording: Recording) -> Result<()> {
        let graph = self
            .graphs
            .get(recording.0)
            .ok_or_else(|| Error::Invalid(format!("the card has no recording {}", recording.0)))?;
        graph.launch().map_err(|error| explain("the card did not start a step", error))
    }

    fn memory(&self) -> Result<[u64; 2]> {
        // The code of kernels and the graphs take some besides the buffers, after these are made.
        const OWN: u64 = 256 << 20;
        let memory = self.context.mem_get_info();
        let (free, all) = memory.map_err(|error| explain("cannot ask the card for its memory", error))?;
        Ok([(free as u64).saturating_sub(OWN), all as u64])
    }

    fn most_shared(&self) -> u32 {
        self.most_shared
    }

    fn has_tensor_cores(&self) -> bool {
        self.has_tensor_cores
    }

    fn describe(&self) -> String {
        self.name.clone()
    }

    fn rounding(&self) -> String {
        format!("{}, NVRTC {}", self.arch, self.nvrtc.version())
    }
}

impl Drop for Card {
    fn drop(&mut self) {
        // Copies under way read from `stage`. A card that fails here has said so, or has nobody left to tell.
        let _ = self.stream.synchronize();
        self.graphs.clear();
        self.memory.clear();
        // What is freed on a stream counts as used until that has got there, also for another card of this process.
        let _ = self.stream.synchronize();
    }
}

/// The argument's bytes, in the first of eight.
fn bits(arg: Arg) -> u64 {
    let bytes = match arg {
        Arg::Address(Address(value)) => value.to_ne_bytes(),
        Arg::I32(value) => front(value.to_ne_bytes()),
        Arg::U32(value) => front(value.to_ne_bytes()),
    };
    u64::from_ne_bytes(bytes)
}

fn front([a, b, c, d]: [u8; 4]) -> [u8; 8] {
    [a, b, c, d, 0, 0, 0, 0]
}

#[cfg(test)]
mod tests;
