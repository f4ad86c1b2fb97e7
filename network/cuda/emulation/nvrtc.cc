// NVRTC for the emulated card: of `libnvrtc` what this program asks for. Kernels become a library with `cuda.h`, which
// lies beside this one, by the host's compiler (`CXX`, else `c++`).

#include <dlfcn.h>
#include <string.h>
#include <unistd.h>

#include <fstream>
#include <iterator>

#include "driver.h"

namespace {

const int VERSION[] = {12, 4}, KNOWN[] = {75, 80, 90};
const int FAILED = 1, DOES_NOT_COMPILE = 6;

struct Program {
    std::string text, log, made;
};

// Behind `cuda.h`: copies a kernel's arguments as `cuLaunchKernelEx` does, each into a cell of its own.
const char *const SAVE = R"(
static inline void __nanosleep(unsigned) {}
namespace emulation {
template <class... A> unsigned save(void (*)(A...), void **from, uint64_t *to) {
    static_assert(sizeof...(A) <= 64 && ((sizeof(A) <= 8) && ...), "as driver.cc has room for");
    unsigned count = 0;
    ((memcpy(&to[count], from[count], sizeof(A)), count++), ...);
    return count;
}
constexpr unsigned first(unsigned threads, unsigned = 0) { return threads; }
} // namespace emulation
)";

std::string read(const std::string &path) {
    std::ifstream file(path);
    return {std::istreambuf_iterator<char>(file), {}};
}

// The folder of this library.
std::string beside() {
    Dl_info own;
    if (!dladdr(reinterpret_cast<void *>(beside), &own)) undefined("this library is nowhere");
    const std::string path = own.dli_fname;
    return path.substr(0, path.rfind('/') + 1);
}

struct Kernel {
    std::string name, bounds; // what stands in `__launch_bounds__`
};

// The kernels of a preprocessed source.
std::vector<Kernel> kernels(const std::string &text) {
    std::vector<Kernel> found;
    const std::string mark = "__global__ void";
    for (size_t at = 0; (at = text.find(mark, at)) != std::string::npos;) {
        at = text.find_first_not_of(" \n", at + mark.size());
        const std::string word = "__launch_bounds__(";
        std::string bounds = "1024";
        if (text.compare(at, word.size(), word) == 0) {
            const size_t first = at += word.size();
            for (int open = 1; open > 0; at++) open += (text[at] == '(') - (text[at] == ')');
            bounds = text.substr(first, at - 1 - first);
            at = text.find_first_not_of(" \n", at);
        }
        const size_t end = text.find('(', at);
        found.push_back({text.substr(at, end - at), bounds});
        at = end;
    }
    return found;
}

// Calls the compiler in a folder; what it says goes to `log` there.
bool compile(const std::string &folder, const std::string &arguments) {
    const char *compiler = getenv("CXX");
    const std::string call = (compiler && *compiler ? compiler : "c++") + (" -std=c++17 -w " + arguments);
    return system(("cd '" + folder + "' && " + call + " 2> log").c_str()) == 0;
}

} // namespace

extern "C" {

int nvrtcVersion(int *major, int *minor) {
    *major = VERSION[0], *minor = VERSION[1];
    return 0;
}

int nvrtcGetNumSupportedArchs(int *count) {
    *count = std::size(KNOWN);
    return 0;
}

int nvrtcGetSupportedArchs(int *known) {
    memcpy(known, KNOWN, sizeof KNOWN);
    return 0;
}

const char *nvrtcGetErrorString(int code) { return code == DOES_NOT_COMPILE ? "NVRTC_ERROR_COMPILATION" : "an error"; }

int nvrtcCreateProgram(Program **program, const char *text, const char *, int, const char **, const char **) {
    *program = new Program{text, "", ""};
    return 0;
}

int nvrtcDestroyProgram(Program **program) {
    delete *program;
    *program = nullptr;
    return 0;
}

int nvrtcCompileProgram(Program *program, int count, const char *const *options) {
    std::string defines, arch;
    for (int i = 0; i < count; i++) {
        const std::string option = options[i];
        const size_t equals = option.find('=');
        if (option.compare(0, equals, "--gpu-architecture") == 0) arch = option.substr(equals + 1);
        if (option.compare(0, 2, "-D") != 0) continue;
        const std::string value = equals == std::string::npos ? "1" : option.substr(equals + 1);
        defines += "#define " + option.substr(2, equals - 2) + " " + value + "\n";
    }
    std::string in = temporary();
    if (!mkdtemp(&in[0])) return FAILED;
    const std::string source = in + "/kernels.cpp", plain = in + "/plain", log = in + "/log", library = in + "/kernels.so";
    std::ofstream(source) << "#define EMULATED\n" << defines << program->text;
    bool done = compile(in, "-E -P -o plain kernels.cpp");
    std::ofstream file(source);
    file << read(beside() + "cuda.h") << SAVE << defines << program->text;
    file << "extern \"C\" const char *const arch = \"" << arch << "\";\n";
    for (const auto &[name, bounds] : done ? kernels(read(plain)) : std::vector<Kernel>()) {
        file << "extern \"C\" const unsigned most_" << name << " = emulation::first(" << bounds << ");\n"
             << "EMULATED_START(" << name << ")\n"
             << "extern \"C\" unsigned save_" << name << "(void **from, uint64_t *to) {\n    return emulation::save("
             << name << ", from, to);\n}\n";
    }
    file.close();
    // What checks jumps takes those between fibers for mistakes.
    done = done && compile(in, "-O1 -shared -fPIC -fno-strict-aliasing -U_FORTIFY_SOURCE -o kernels.so kernels.cpp");
    program->log = read(log);
    program->made = done ? read(library) : "";
    for (const std::string &made : {source, plain, log, library}) unlink(made.c_str());
    rmdir(in.c_str());
    return done ? 0 : DOES_NOT_COMPILE;
}

int nvrtcGetProgramLogSize(Program *program, size_t *bytes) {
    *bytes = program->log.size() + 1;
    return 0;
}

int nvrtcGetProgramLog(Program *program, char *log) {
    memcpy(log, program->log.c_str(), program->log.size() + 1);
    return 0;
}

int nvrtcGetCUBINSize(Program *program, size_t *bytes) {
    *bytes = program->made.size();
    return 0;
}

int nvrtcGetCUBIN(Program *program, char *made) {
    memcpy(made, program->made.data(), program->made.size());
    return 0;
}

} // extern "C"
