// Arrays of a .npz file as numpy.savez writes it: a zip without compression, one .npy an entry.
#pragma once

#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

struct Array {
    std::string dtype;  // as numpy writes it: "<f4", "|u1", "<i8"
    std::vector<int64_t> shape;
    std::vector<char> bytes;

    size_t size() const {
        size_t count = 1;
        for (int64_t side : shape) count *= static_cast<size_t>(side);
        return count;
    }
    template <typename T>
    const T* as() const {
        return reinterpret_cast<const T*>(bytes.data());
    }
};

namespace npz {

template <typename T>
T number(const std::string& file, size_t at) {
    if (at + sizeof(T) > file.size()) throw std::runtime_error("the .npz file ends too early");
    T value;
    std::memcpy(&value, file.data() + at, sizeof(T));
    return value;
}

inline Array parse_npy(const std::string& npy, const std::string& name) {
    if (npy.size() < 10 || npy.compare(0, 6, "\x93NUMPY") != 0) throw std::runtime_error(name + " is no .npy array");
    const bool wide = npy[6] >= 2;
    const size_t start = wide ? 12 : 10;
    const size_t length = wide ? number<uint32_t>(npy, 8) : number<uint16_t>(npy, 8);
    const std::string header = npy.substr(start, length);
    if (header.find("'fortran_order': False") == std::string::npos) {
        throw std::runtime_error(name + " is not in C order");
    }
    Array array;
    const size_t type = header.find("'descr': '") + 10;
    array.dtype = header.substr(type, header.find('\'', type) - type);
    const size_t open = header.find("'shape': (") + 10, close = header.find(')', open);
    for (size_t at = open; at < close;) {
        const size_t end = std::min(header.find(',', at), close);
        if (end > at && header.find_first_not_of(' ', at) < end) array.shape.push_back(std::stoll(header.substr(at)));
        at = end + 1;
    }
    array.bytes.assign(npy.begin() + static_cast<std::ptrdiff_t>(start + length), npy.end());
    const size_t item = std::stoul(array.dtype.substr(2));
    if (array.bytes.size() != array.size() * item) throw std::runtime_error(name + " does not have the size it states");
    return array;
}

// Sizes come from the central directory; the names are those given to numpy.savez.
inline std::map<std::string, Array> read(const std::string& path) {
    std::ifstream stream(path, std::ios::binary);
    if (!stream) throw std::runtime_error("cannot read " + path);
    const std::string file((std::istreambuf_iterator<char>(stream)), std::istreambuf_iterator<char>());
    const size_t end = file.rfind("PK\x05\x06");
    if (end == std::string::npos) throw std::runtime_error(path + " is no .npz file");
    size_t at = number<uint32_t>(file, end + 16);
    std::map<std::string, Array> arrays;
    for (int left = number<uint16_t>(file, end + 10); left > 0; --left) {
        const uint16_t method = number<uint16_t>(file, at + 10);
        const size_t size = number<uint32_t>(file, at + 24), local = number<uint32_t>(file, at + 42);
        const size_t name_length = number<uint16_t>(file, at + 28);
        std::string name = file.substr(at + 46, name_length);
        if (method != 0 || size == UINT32_MAX) throw std::runtime_error(path + " is compressed or above 4 GB");
        const size_t data = local + 30 + number<uint16_t>(file, local + 26) + number<uint16_t>(file, local + 28);
        if (data + size > file.size()) throw std::runtime_error(path + " ends too early");
        name = name.substr(0, name.rfind(".npy"));
        arrays[name] = parse_npy(file.substr(data, size), name);
        at += 46 + name_length + number<uint16_t>(file, at + 30) + number<uint16_t>(file, at + 32);
    }
    return arrays;
}

}  // namespace npz
