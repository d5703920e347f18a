// Runs a fuzz target without libFuzzer: over each file given, and over mutations of it.
//
// usage: PROGRAM MUTATIONS FILE...   The same mutations every time, for any compiler.

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <random>
#include <string>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

const char* const kPieces[] = {"0",
                               "-1",
                               "9223372036854775807",
                               "1099511627776",
                               "1e308",
                               "[]",
                               "{}",
                               "[",
                               "}",
                               "\"",
                               ",",
                               ":",
                               "%00",
                               "\\",
                               "true",
                               "null",
                               "1.5",
                               " "};

void run(const std::string& text) {
    LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(text.data()), text.size());
}

void mutate(std::string& text, std::mt19937& random) {
    size_t at = text.empty() ? 0 : random() % text.size();
    size_t piece = random() % std::size(kPieces), length = random() % 12;
    switch (random() % 5) {
        case 0:
            text.replace(at, length, kPieces[piece]);
            break;
        case 1:
            text.erase(at, length);
            break;
        case 2:
            text.insert(at, text.substr(random() % (text.size() + 1), length * 8));
            break;
        case 3:
            text.insert(at, kPieces[piece]);
            break;
        default:
            if (!text.empty()) text[at] = static_cast<char>(random());
    }
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 3) return 2;
    std::mt19937 random(1);
    long count = std::atol(argv[1]), runs = 0;
    for (int i = 2; i < argc; ++i) {
        std::ifstream file(argv[i], std::ios::binary);
        std::string seed{std::istreambuf_iterator<char>(file), {}};
        run(seed);
        for (long n = 0; n < count; ++n, ++runs) {
            std::string text = seed;
            for (unsigned changes = 1 + random() % 4; changes > 0; --changes) mutate(text, random);
            run(text);
        }
    }
    std::printf("%ld runs\n", runs);
    return 0;
}
