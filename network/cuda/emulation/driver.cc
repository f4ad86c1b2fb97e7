// A driver for machines without a card: of `libcuda` what this program asks for. Kernels are libraries (`nvrtc.cc`) and
// run on the processor. For tests of what the host does; how fast it does it they cannot tell.
//
// In this it is stricter than a card: what a stream was given is done when somebody waits for it and no sooner, so that
// memory that changes under a copy shows; the process ends at many things that are undefined on a card, and where the
// last user of a context leaves something in it. It does not see a graph that is run after its memory was freed.
//
// EMULATED_CARDS         how many there are: 1
// EMULATED_CAPABILITY    of each: 9.0
// EMULATED_MEMORY        bytes of each: 2^40
// EMULATED_SILENT        the number of one that cannot be asked
// EMULATED_CUDA          the version of CUDA that the driver serves: 12040
// EMULATED_LOST_AFTER    graphs that the first card still runs before it is lost

#include "driver.h"

#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include <mutex>

namespace {

std::recursive_mutex everything;
bool initialized;
std::map<int, Context> contexts;
thread_local Context *current;

void run(const Context &context, const Launch &launch) {
    const char *name = launch.function->name.c_str();
    if (!launch.function->loaded) undefined("kernel `%s` was gone when its turn came", name);
    std::vector<uint64_t> cells = launch.cells;
    std::vector<void *> arguments;
    for (uint64_t &cell : cells) arguments.push_back(&cell);
    const int result = launch.function->start(launch.grid, launch.block, launch.shared, arguments.data(),
                                              arguments.size(), false);
    if (result != 0) undefined("kernel `%s`: result %d of cuda.h", name, result);
    check_borders(context, name);
}

// The current context, where the calling thread may ask it for something. What is asked while this thread captures a
// stream would spoil that.
Code usable(Context *&context, bool while_capturing = false) {
    if (!initialized) return NOT_INITIALIZED;
    context = current;
    if (!context) return INVALID_CONTEXT;
    if (context->users == 0) return CONTEXT_IS_DESTROYED;
    if (context->lost) return LAUNCH_FAILED;
    if (while_capturing) return SUCCESS;
    for (Stream *stream : context->streams) {
        if (!stream->captures || stream->capturer != std::this_thread::get_id()) continue;
        stream->spoilt = true;
        return CAPTURE_UNSUPPORTED;
    }
    return SUCCESS;
}

// Does all that the stream was given, which no capture may be in the way of.
Code finish(Context *context, Stream *stream) {
    if (stream->captures) {
        stream->spoilt = true;
        return CAPTURE_UNSUPPORTED;
    }
    auto work = std::move(stream->work);
    stream->work.clear();
    stream->sources.clear();
    for (auto &piece : work) {
        if (!context->lost) piece();
    }
    return context->lost ? LAUNCH_FAILED : SUCCESS;
}

// Puts work on a stream that does not capture.
template <class Work> Code give(Stream *stream, Work work) {
    Context *context;
    if (const Code code = usable(context)) return code;
    if (!context->streams.count(stream)) return INVALID_HANDLE;
    stream->work.push_back([=] { work(context); });
    return SUCCESS;
}

} // namespace

#define LOCKED const std::lock_guard<std::recursive_mutex> lock(everything)
// The context, or out with the reason why there is none.
#define USABLE(context)                                                                                                \
    LOCKED;                                                                                                            \
    Context *context;                                                                                                  \
    if (const Code code = usable(context)) return code

extern "C" {

// Driver and cards.

Code cuInit(unsigned flags) {
    LOCKED;
    if (flags) return INVALID_VALUE;
    initialized = !cards().empty();
    return initialized ? SUCCESS : NO_DEVICE;
}

Code cuDriverGetVersion(int *version) {
    *version = number("EMULATED_CUDA", 12040);
    return SUCCESS;
}

Code cuGetErrorString(Code code, const char **words) {
    *words = code == OUT_OF_MEMORY ? "out of memory" : code == LAUNCH_FAILED ? "unspecified launch failure" : "an error";
    return SUCCESS;
}

Code cuDeviceGetCount(int *count) {
    if (!initialized) return NOT_INITIALIZED;
    *count = cards().size();
    return SUCCESS;
}

Code cuDeviceGet(int *device, int ordinal) {
    if (!initialized) return NOT_INITIALIZED;
    const std::vector<int> all = cards();
    if (ordinal < 0 || size_t(ordinal) >= all.size()) return INVALID_DEVICE;
    *device = all[ordinal];
    return SUCCESS;
}

Code cuDeviceGetName(char *name, int bytes, int device) {
    snprintf(name, bytes, "emulated card %d", device);
    return SUCCESS;
}

Code cuDeviceTotalMem_v2(size_t *bytes, int) {
    *bytes = number("EMULATED_MEMORY", uint64_t(1) << 40);
    return SUCCESS;
}

enum { CAPABILITY_MAJOR = 75, CAPABILITY_MINOR = 76, SHARED_OPTIN = 97, MEMORY_POOLS = 115 };

Code cuDeviceGetAttribute(int *value, int attribute, int device) {
    if (uint64_t(device) == number("EMULATED_SILENT", UINT64_MAX)) return INVALID_DEVICE;
    switch (attribute) {
    case CAPABILITY_MAJOR: *value = capability() / 10; return SUCCESS;
    case CAPABILITY_MINOR: *value = capability() % 10; return SUCCESS;
    case SHARED_OPTIN: *value = most_shared(); return SUCCESS;
    case MEMORY_POOLS: *value = 1; return SUCCESS;
    }
    undefined("nothing is known of attribute %d", attribute);
}

// Contexts.

Code cuDevicePrimaryCtxRetain(Context **context, int device) {
    LOCKED;
    if (!initialized) return NOT_INITIALIZED;
    *context = &contexts[device];
    (*context)->card = device;
    (*context)->users++;
    return SUCCESS;
}

Code cuDevicePrimaryCtxRelease_v2(int device) {
    LOCKED;
    Context &context = contexts[device];
    if (context.users == 0) return INVALID_CONTEXT;
    if (--context.users > 0) return SUCCESS;
    if (!context.lost && !context.is_empty()) {
        undefined("the last user of card %d leaves something: %zu buffers, %zu streams, %zu modules, %zu graphs", device,
                  context.buffers.size(), context.streams.size(), context.modules.size(),
                  context.graphs.size() + context.executables.size());
    }
    context = {};
    return SUCCESS;
}

Code cuCtxGetCurrent(Context **context) {
    *context = current;
    return SUCCESS;
}

Code cuCtxSetCurrent(Context *context) {
    current = context;
    return SUCCESS;
}

Code cuCtxSynchronize() {
    USABLE(context);
    for (Stream *stream : context->streams) {
        if (const Code code = finish(context, stream)) return code;
    }
    return SUCCESS;
}

// Memory.

Code cuMemGetInfo_v2(size_t *free, size_t *all) {
    USABLE(context);
    *all = number("EMULATED_MEMORY", uint64_t(1) << 40);
    *free = *all - context->used;
    return SUCCESS;
}

Code cuMemAllocAsync(uint64_t *at, size_t bytes, Stream *stream) {
    USABLE(context);
    if (bytes == 0) return INVALID_VALUE;
    if (!context->streams.count(stream)) return INVALID_HANDLE;
    if (rounded(bytes) > number("EMULATED_MEMORY", uint64_t(1) << 40) - context->used) return OUT_OF_MEMORY;
    char *first = static_cast<char *>(aligned_alloc(256, rounded(bytes) + 2 * AROUND));
    if (!first) return OUT_OF_MEMORY;
    memset(first, NOTHING, rounded(bytes) + 2 * AROUND);
    *at = reinterpret_cast<uint64_t>(first + AROUND);
    context->buffers[*at] = bytes;
    context->used += rounded(bytes);
    return SUCCESS;
}

// From now on nothing new may ask for it; what was asked for before still finds it.
Code cuMemFreeAsync(uint64_t at, Stream *stream) {
    USABLE(context);
    const auto buffer = context->buffers.find(at);
    if (buffer == context->buffers.end()) return INVALID_VALUE;
    const uint64_t bytes = rounded(buffer->second);
    const Code code = give(stream, [=](Context *context) {
        context->used -= bytes;
        free(reinterpret_cast<char *>(at) - AROUND);
    });
    if (code == SUCCESS) context->buffers.erase(buffer);
    return code;
}

Code cuMemsetD8Async(uint64_t at, unsigned char value, size_t bytes, Stream *stream) {
    USABLE(context);
    if (!holds(*context, at, bytes)) return INVALID_VALUE;
    return give(stream, [=](Context *) { memset(reinterpret_cast<void *>(at), value, bytes); });
}

Code cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t bytes, Stream *stream) {
    USABLE(context);
    if (!holds(*context, to, bytes)) return INVALID_VALUE;
    const Code code = give(stream, [=](Context *) { memcpy(reinterpret_cast<void *>(to), from, bytes); });
    if (code == SUCCESS) stream->sources.push_back(static_cast<const char *>(from));
    return code;
}

Code cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t bytes, Stream *stream) {
    USABLE(context);
    if (!holds(*context, from, bytes)) return INVALID_VALUE;
    return give(stream, [=](Context *) { memcpy(to, reinterpret_cast<void *>(from), bytes); });
}

Code cuMemHostAlloc(void **at, size_t bytes, unsigned) {
    USABLE(context);
    char *first = static_cast<char *>(malloc(bytes));
    if (!first) return OUT_OF_MEMORY;
    memset(*at = first, NOTHING, bytes);
    context->pinned[first] = bytes;
    return SUCCESS;
}

Code cuMemFreeHost(void *at) {
    USABLE(context);
    const auto own = context->pinned.find(static_cast<char *>(at));
    if (own == context->pinned.end()) return INVALID_VALUE;
    const auto [first, bytes] = *own;
    for (Stream *stream : context->streams) {
        for (const char *source : stream->sources) {
            if (first <= source && source < first + bytes) undefined("page-locked memory goes while a copy reads it");
        }
    }
    context->pinned.erase(own);
    free(at);
    return SUCCESS;
}

// Events: nothing is recorded in them, so nobody waits for long.

Code cuEventCreate(void **event, unsigned) {
    USABLE(context);
    *event = malloc(1);
    context->events.insert(*event);
    return SUCCESS;
}

Code cuEventSynchronize(void *event) {
    USABLE(context);
    return context->events.count(event) ? SUCCESS : INVALID_HANDLE;
}

Code cuEventDestroy_v2(void *event) {
    USABLE(context);
    if (!context->events.erase(event)) return INVALID_HANDLE;
    free(event);
    return SUCCESS;
}

// Streams.

Code cuStreamCreate(Stream **stream, unsigned) {
    USABLE(context);
    context->streams.insert(*stream = new Stream());
    return SUCCESS;
}

Code cuStreamSynchronize(Stream *stream) {
    USABLE(context);
    return context->streams.count(stream) ? finish(context, stream) : INVALID_HANDLE;
}

Code cuStreamDestroy_v2(Stream *stream) {
    USABLE(context);
    if (!context->streams.erase(stream)) return INVALID_HANDLE;
    finish(context, stream); // which a card does later, and nobody could tell
    delete stream;
    return SUCCESS;
}

// Kernels.

Code cuModuleLoadData(Module **module, const void *image) {
    USABLE(context);
    const Elf64_Ehdr *elf = static_cast<const Elf64_Ehdr *>(image);
    if (memcmp(elf->e_ident, ELFMAG, SELFMAG) != 0) return INVALID_IMAGE;
    const size_t bytes = elf->e_shoff + elf->e_shnum * elf->e_shentsize; // a linker writes this table last
    std::string name = temporary();
    const int file = mkstemp(&name[0]);
    const bool written = file >= 0 && write(file, image, bytes) == ssize_t(bytes);
    if (!written) undefined("%zu bytes of kernels in %s: %s", bytes, name.c_str(), strerror(errno));
    void *library = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
    close(file);
    unlink(name.c_str());
    if (!library) undefined("%s", dlerror());
    const char *const *arch = static_cast<const char *const *>(dlsym(library, "arch"));
    if (!arch || *arch != "sm_" + std::to_string(capability())) return NO_BINARY_FOR_GPU;
    context->modules.insert(*module = new Module{library, {}});
    return SUCCESS;
}

Code cuModuleUnload(Module *module) {
    USABLE(context);
    if (!context->modules.erase(module)) return INVALID_HANDLE;
    for (auto &[_, function] : module->functions) function.loaded = false;
    return SUCCESS;
}

Code cuModuleGetFunction(Function **function, Module *module, const char *name) {
    USABLE(context);
    if (!context->modules.count(module)) return INVALID_HANDLE;
    const auto find = [&](const char *what) { return dlsym(module->library, (std::string(what) + name).c_str()); };
    Start *start = reinterpret_cast<Start *>(find("start_"));
    Save *save = reinterpret_cast<Save *>(find("save_"));
    const unsigned *most = static_cast<const unsigned *>(find("most_"));
    if (!start || !save || !most) return NOT_FOUND;
    *function = &module->functions.emplace(name, Function{name, start, save, *most}).first->second;
    return SUCCESS;
}

Code cuFuncSetAttribute(Function *function, int attribute, int value) {
    USABLE(context);
    const int MAX_DYNAMIC_SHARED = 8;
    if (attribute != MAX_DYNAMIC_SHARED) undefined("nothing is known of a kernel's attribute %d", attribute);
    if (value < 0 || value > most_shared()) return INVALID_VALUE;
    function->shared = value;
    return SUCCESS;
}

struct Attribute {
    int id;
    char pad[4];
    int value;
    char rest[60];
};
struct Config {
    unsigned grid[3], block[3], shared;
    Stream *stream;
    Attribute *attributes;
    unsigned count;
};

Code cuLaunchKernelEx(const Config *config, Function *function, void **arguments, void **) {
    LOCKED;
    Context *context;
    if (const Code code = usable(context, true)) return code;
    Stream *stream = config->stream;
    if (!context->streams.count(stream) || !function->loaded) return INVALID_HANDLE;
    const auto [x, y, z] = config->grid;
    const auto [i, j, k] = config->block;
    if (!x || !y || !z || y > 65535 || z > 65535) return INVALID_VALUE;
    if (!i || !j || !k || k > 64 || uint64_t(i) * j * k > function->most) return INVALID_VALUE;
    if (config->shared > unsigned(function->shared)) return INVALID_VALUE;
    const int BEGINS_EARLY = 6;
    for (unsigned i = 0; i < config->count; i++) {
        if (config->attributes[i].id != BEGINS_EARLY || capability() < 90) return INVALID_VALUE;
        if (stream->captures && stream->captured.empty()) return INVALID_VALUE; // before which launch?
    }
    Launch launch = {function, {}, {}, config->shared, std::vector<uint64_t>(64)};
    memcpy(launch.grid, config->grid, sizeof launch.grid);
    memcpy(launch.block, config->block, sizeof launch.block);
    launch.cells.resize(function->save(arguments, launch.cells.data()));
    if (stream->captures) {
        stream->captured.push_back(std::move(launch));
    } else {
        stream->work.push_back([=] { run(*context, launch); });
    }
    return SUCCESS;
}

// Graphs.

Code cuStreamBeginCapture_v2(Stream *stream, int mode) {
    USABLE(context);
    const int THREAD_LOCAL = 1;
    if (!context->streams.count(stream) || mode != THREAD_LOCAL) return INVALID_VALUE;
    stream->captures = true;
    stream->spoilt = false;
    stream->capturer = std::this_thread::get_id();
    stream->captured.clear();
    return SUCCESS;
}

Code cuStreamEndCapture(Stream *stream, Graph **graph) {
    LOCKED;
    Context *context;
    if (const Code code = usable(context, true)) return code;
    if (!context->streams.count(stream) || !stream->captures) return INVALID_VALUE;
    if (stream->capturer != std::this_thread::get_id()) return CAPTURE_WRONG_THREAD;
    stream->captures = false;
    if (stream->spoilt) return CAPTURE_INVALIDATED;
    context->graphs.insert(*graph = new Graph(std::move(stream->captured)));
    return SUCCESS;
}

Code cuGraphInstantiateWithFlags(Graph **executable, Graph *graph, unsigned long long) {
    USABLE(context);
    if (!context->graphs.count(graph)) return INVALID_VALUE;
    context->executables.insert(*executable = new Graph(*graph));
    return SUCCESS;
}

Code cuGraphUpload(Graph *executable, Stream *stream) {
    USABLE(context);
    return context->executables.count(executable) && context->streams.count(stream) ? SUCCESS : INVALID_VALUE;
}

Code cuGraphLaunch(Graph *executable, Stream *stream) {
    USABLE(context);
    if (!context->executables.count(executable)) return INVALID_VALUE;
    return give(stream, [launches = *executable](Context *context) {
        static uint64_t left = number("EMULATED_LOST_AFTER", UINT64_MAX);
        if (context->card == 0 && left-- == 0) {
            context->lost = true;
            return;
        }
        for (const Launch &launch : launches) run(*context, launch);
    });
}

Code cuGraphExecDestroy(Graph *executable) {
    USABLE(context);
    if (!context->executables.erase(executable)) return INVALID_VALUE;
    delete executable;
    return SUCCESS;
}

Code cuGraphDestroy(Graph *graph) {
    USABLE(context);
    if (!context->graphs.erase(graph)) return INVALID_VALUE;
    delete graph;
    return SUCCESS;
}

} // extern "C"
