// What a runtime does for the runner: a batch in, every output by its name out.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "npz.hpp"

struct Session {
    virtual ~Session() = default;
    virtual std::string version() const = 0;   // "ONNX Runtime 1.31.1"
    virtual std::string provider() const = 0;  // what it runs on
    virtual int64_t batch() const = 0;         // images a call; -1: any number
    // `input` holds a whole batch: floats or uint8, as the graph takes them.
    virtual std::map<std::string, Array> infer(const Array& input) = 0;
};
