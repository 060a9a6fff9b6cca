// Run a model of this bundle on its golden images: compare with the golden outputs, then measure the latency.
//
//   runner BUNDLE MODEL [--tensorrt] [--reference] [--threads N] [--runs N] [--atol X]
//
// Prints one line of JSON. Exit code 0: the goldens are reached. 2: wrong arguments. 3: not reached, or a failure.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <iostream>
#include <memory>

#include "npz.hpp"
#include "session.hpp"
#ifdef RUNNER_ONNXRUNTIME
#include "onnxruntime_session.hpp"
#endif
#ifdef RUNNER_TENSORRT
#include "tensorrt_session.hpp"
#endif

namespace {

constexpr int kWarmup = 20;

struct Arguments {
    std::string bundle, model;
    bool tensorrt = false, reference = false;
    int threads = 0, runs = 0;
    double atol = -1;  // below 0: the one that was measured
};

Arguments parse(int count, char** values) {
    Arguments found;
    std::vector<std::string> places;
    for (int i = 1; i < count; ++i) {
        const std::string word = values[i];
        const auto next = [&]() -> std::string {
            if (++i >= count) throw std::invalid_argument(word + " needs a value");
            return values[i];
        };
        if (word == "--tensorrt") found.tensorrt = true;
        else if (word == "--reference") found.reference = true;
        else if (word == "--threads") found.threads = std::stoi(next());
        else if (word == "--runs") found.runs = std::stoi(next());
        else if (word == "--atol") found.atol = std::stod(next());
        else if (word.rfind("--", 0) == 0) throw std::invalid_argument("there is no option " + word);
        else places.push_back(word);
    }
    if (places.size() != 2) throw std::invalid_argument("name the bundle and the model");
    found.bundle = places[0];
    found.model = places[1];
    return found;
}

std::unique_ptr<Session> open(const Arguments& arguments) {
    const std::string folder = arguments.bundle + "/models/" + arguments.model + "/1/";
    if (arguments.tensorrt) {
#ifdef RUNNER_TENSORRT
        return std::make_unique<TensorRtSession>(folder + "model.plan");
#else
        throw std::invalid_argument("this runner was built without TensorRT: set RUNNER_TENSORRT");
#endif
    }
#ifdef RUNNER_ONNXRUNTIME
    return std::make_unique<OnnxRuntimeSession>(folder + "model.onnx", arguments.threads, !arguments.reference);
#else
    throw std::invalid_argument("this runner was built without ONNX Runtime: use --tensorrt");
#endif
}

const Array& entry(const std::map<std::string, Array>& arrays, const std::string& name) {
    const auto found = arrays.find(name);
    if (found == arrays.end()) throw std::runtime_error("goldens.npz has no " + name);
    return found->second;
}

// uint8 [N, H, W, C] as the graph takes it: float32 [N, C, H, W] of pixel * scale + shift, or the pixels themselves
// where the graph normalises them.
Array preprocess(const std::map<std::string, Array>& goldens) {
    const Array& pixels = entry(goldens, "pixels");
    if (goldens.find("scale") == goldens.end()) return pixels;
    const Array &scale = entry(goldens, "scale"), &shift = entry(goldens, "shift");
    const int64_t n = pixels.shape[0], h = pixels.shape[1], w = pixels.shape[2], c = pixels.shape[3];
    Array images;
    images.dtype = "<f4";
    images.shape = {n, c, h, w};
    images.bytes.resize(images.size() * sizeof(float));
    float* out = reinterpret_cast<float*>(images.bytes.data());
    const uint8_t* in = pixels.as<uint8_t>();
    for (int64_t i = 0; i < n; ++i)
        for (int64_t k = 0; k < c; ++k)
            for (int64_t place = 0; place < h * w; ++place)
                *out++ = in[(i * h * w + place) * c + k] * scale.as<float>()[k] + shift.as<float>()[k];
    return images;
}

// Images `start` to `start + count`; those behind the last are copies of it.
Array rows(const Array& images, int64_t start, int64_t count) {
    Array part;
    part.dtype = images.dtype;
    part.shape = images.shape;
    part.shape[0] = count;
    const size_t row = images.bytes.size() / static_cast<size_t>(images.shape[0]);
    for (int64_t i = start; i < start + count; ++i) {
        const auto from = images.bytes.begin() + static_cast<std::ptrdiff_t>(row * std::min(i, images.shape[0] - 1));
        part.bytes.insert(part.bytes.end(), from, from + static_cast<std::ptrdiff_t>(row));
    }
    return part;
}

double value(const Array& array, size_t at) {
    if (array.dtype == "<f4") return array.as<float>()[at];
    if (array.dtype == "<f8") return array.as<double>()[at];
    if (array.dtype == "<i4") return array.as<int32_t>()[at];
    if (array.dtype == "<i8") return static_cast<double>(array.as<int64_t>()[at]);
    throw std::runtime_error("goldens of type " + array.dtype);
}

// The largest error of every output over all golden images, as JSON; false where one is above what is allowed.
bool compare(Session& session, const Array& images, const std::map<std::string, Array>& goldens,
             const Arguments& arguments, std::string& json) {
    const int64_t n = images.shape[0], batch = session.batch() < 1 ? n : session.batch();
    std::map<std::string, double> worst;
    for (int64_t start = 0; start < n; start += batch) {
        for (const auto& [name, got] : session.infer(rows(images, start, batch))) {
            if (name != "logits" && goldens.find(arguments.model + "/" + name) == goldens.end()) continue;  // classes
            const Array& expected = entry(goldens, arguments.model + "/" + name);
            const size_t row = expected.size() / static_cast<size_t>(n);
            if (got.size() != row * static_cast<size_t>(batch)) throw std::runtime_error(name + " has another size");
            const size_t here = row * static_cast<size_t>(std::min(batch, n - start));
            double& largest = worst[name];
            for (size_t i = 0; i < here; ++i) {
                const double error = std::fabs(value(got, i) - value(expected, row * static_cast<size_t>(start) + i));
                if (!(error <= largest)) largest = error;  // keeps a NaN, too
            }
        }
    }
    bool reached = true;
    for (const auto& [name, error] : worst) {
        const Array& measured = entry(goldens, arguments.model + "/" + name + ".atol");
        const double atol = arguments.atol < 0 ? value(measured, 0) : arguments.atol;
        reached = reached && error <= atol;
        char text[200];
        std::snprintf(text, sizeof text, "%s\"%s\": {\"max_abs_error\": %.9g, \"atol\": %.9g, \"n\": %lld}",
                      json.empty() ? "" : ", ", name.c_str(), error, atol, static_cast<long long>(n));
        json += text;
    }
    return reached;
}

// Percentiles by nearest rank, in ms a call.
std::string measure(Session& session, const Array& images, int runs) {
    const Array input = rows(images, 0, session.batch() < 1 ? 1 : session.batch());
    for (int i = 0; i < kWarmup; ++i) session.infer(input);
    std::vector<double> samples;
    double sum = 0;
    for (int i = 0; i < runs; ++i) {
        const auto start = std::chrono::steady_clock::now();
        session.infer(input);
        const std::chrono::duration<double, std::milli> spent = std::chrono::steady_clock::now() - start;
        samples.push_back(spent.count());
        sum += spent.count();
    }
    std::sort(samples.begin(), samples.end());
    const auto rank = [&](double q) {
        return samples[static_cast<size_t>(std::max(0.0, std::ceil(q * runs) - 1))];
    };
    char text[200];
    std::snprintf(text, sizeof text,
                  ", \"p50_ms\": %.6f, \"p90_ms\": %.6f, \"p99_ms\": %.6f, \"mean_ms\": %.6f, \"n\": %d, \"batch\": %lld",
                  rank(0.5), rank(0.9), rank(0.99), sum / runs, runs, static_cast<long long>(input.shape[0]));
    return text;
}

}  // namespace

int main(int count, char** values) {
    try {
        const Arguments arguments = parse(count, values);
        const auto goldens = npz::read(arguments.bundle + "/goldens.npz");
        const Array images = preprocess(goldens);
        const auto session = open(arguments);
        std::string outputs;
        const bool reached = compare(*session, images, goldens, arguments, outputs);
        const std::string latency = arguments.runs > 0 ? measure(*session, images, arguments.runs) : "";
        std::printf("{\"model\": \"%s\", \"runtime\": \"%s\", \"provider\": \"%s\", \"ok\": %s, \"outputs\": {%s}%s}\n",
                    arguments.model.c_str(), session->version().c_str(), session->provider().c_str(),
                    reached ? "true" : "false", outputs.c_str(), latency.c_str());
        return reached ? 0 : 3;
    } catch (const std::invalid_argument& error) {
        std::cerr << "error: " << error.what()
                  << "\nrunner BUNDLE MODEL [--tensorrt] [--reference] [--threads N] [--runs N] [--atol X]\n";
        return 2;
    } catch (const std::exception& error) {
        std::cerr << "error: " << error.what() << '\n';
        return 3;
    }
}
