// What an emulated card is made of.

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <functional>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

// CUDA's numbers.
enum Code {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NOT_INITIALIZED = 3,
    NO_DEVICE = 100,
    INVALID_DEVICE = 101,
    INVALID_IMAGE = 200,
    INVALID_CONTEXT = 201,
    NO_BINARY_FOR_GPU = 209,
    INVALID_HANDLE = 400,
    NOT_FOUND = 500,
    CONTEXT_IS_DESTROYED = 709,
    LAUNCH_FAILED = 719,
    CAPTURE_UNSUPPORTED = 900,
    CAPTURE_INVALIDATED = 901,
    CAPTURE_WRONG_THREAD = 908,
};
const int SHARED_UNASKED = 48 << 10;
const int64_t AROUND = 1024; // bytes around each buffer, and what they hold: as floats not numbers
const unsigned char NOTHING = 0xff;

// What no card is known to answer.
[[noreturn]] __attribute__((format(printf, 1, 2))) inline void undefined(const char *format, ...) {
    va_list rest;
    va_start(rest, format);
    fputs("emulated driver: ", stderr);
    vfprintf(stderr, format, rest);
    fputs("\n", stderr);
    abort();
}

inline uint64_t number(const char *name, uint64_t otherwise) {
    const char *value = getenv(name);
    return value && *value ? strtoull(value, nullptr, 10) : otherwise;
}

// A name for `mkstemp` or `mkdtemp`.
inline std::string temporary() {
    const char *folder = getenv("TMPDIR");
    return std::string(folder && *folder ? folder : "/tmp") + "/emulated-XXXXXX";
}

typedef int Start(const unsigned *, const unsigned *, unsigned, void **, unsigned, bool);
typedef unsigned Save(void **, uint64_t *);

struct Function {
    std::string name;
    Start *start;
    Save *save;
    unsigned most; // threads of a block
    int shared = SHARED_UNASKED;
    bool loaded = true;
};

// Never deleted: fibers have stacks in its library.
struct Module {
    void *library;
    std::map<std::string, Function> functions;
};

struct Launch {
    Function *function;
    unsigned grid[3], block[3], shared;
    std::vector<uint64_t> cells;
};

typedef std::vector<Launch> Graph;

struct Stream {
    std::vector<std::function<void()>> work;
    std::vector<const char *> sources; // memory of the host that copies in `work` read
    bool captures = false, spoilt = false;
    std::thread::id capturer;
    Graph captured;
};

// A card's primary context.
struct Context {
    int card = 0, users = 0;
    bool lost = false;
    uint64_t used = 0;
    std::map<uint64_t, uint64_t> buffers; // their lengths, by where they begin
    std::map<char *, size_t> pinned; // page-locked memory of the host
    std::set<void *> events;
    std::set<Stream *> streams;
    std::set<Module *> modules;
    std::set<Graph *> graphs, executables;

    bool is_empty() const {
        return buffers.empty() && pinned.empty() && events.empty() && streams.empty() && modules.empty() &&
               graphs.empty() && executables.empty();
    }
};

// The cards' numbers, as CUDA_VISIBLE_DEVICES has them.
inline std::vector<int> cards() {
    const int all = number("EMULATED_CARDS", 1);
    std::vector<int> seen;
    const char *visible = getenv("CUDA_VISIBLE_DEVICES");
    if (!visible) {
        for (int i = 0; i < all; i++) seen.push_back(i);
        return seen;
    }
    std::istringstream list(visible);
    for (std::string id; std::getline(list, id, ',');) {
        char *end;
        const long card = strtol(id.c_str(), &end, 10);
        if (end == id.c_str() || card < 0 || card >= all) break;
        seen.push_back(card);
    }
    return seen;
}

// Major and minor, as one number: 90.
inline int capability() {
    const char *told = getenv("EMULATED_CAPABILITY");
    int major = 9, minor = 0;
    if (told && sscanf(told, "%d.%d", &major, &minor) != 2) undefined("EMULATED_CAPABILITY is no version");
    return 10 * major + minor;
}

// Bytes of shared memory that a block may be granted: CUDA C++ Programming Guide, technical specifications.
inline int most_shared() {
    static const std::map<int, int> known = {{75, 64}, {80, 163}, {86, 99}, {87, 163}, {89, 99}, {90, 227}, {100, 227}};
    const auto own = known.find(capability());
    return (own == known.end() ? 99 : own->second) << 10;
}

inline uint64_t rounded(uint64_t bytes) { return (bytes + 255) / 256 * 256; }

// Is all of it in one buffer?
inline bool holds(const Context &context, uint64_t at, uint64_t bytes) {
    auto after = context.buffers.upper_bound(at);
    if (after == context.buffers.begin()) return false;
    --after;
    return at + bytes <= after->first + after->second;
}

inline void check_borders(const Context &context, const std::string &kernel) {
    for (auto [at, bytes] : context.buffers) {
        const unsigned char *first = reinterpret_cast<unsigned char *>(at);
        for (int64_t i = -AROUND; i < AROUND; i++) {
            if (first[i < 0 ? i : int64_t(bytes) + i] == NOTHING) continue;
            undefined("kernel `%s` wrote around a buffer of %zu bytes", kernel.c_str(), size_t(bytes));
        }
    }
}
