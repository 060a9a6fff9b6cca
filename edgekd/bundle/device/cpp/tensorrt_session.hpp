// TensorRT 8.5 or newer: tensors go by their names. An engine is code: load only one that build.sh made here.
#pragma once

#include <NvInferRuntime.h>
#include <cuda_runtime_api.h>

#include <iostream>
#include <memory>

#include "session.hpp"

class TensorRtSession : public Session {
   public:
    explicit TensorRtSession(const std::string& path) {
        int devices = 0;
        if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {  // else TensorRT may end the process
            throw std::runtime_error("there is no GPU here, or no driver of it");
        }
        std::ifstream stream(path, std::ios::binary);
        if (!stream) throw std::runtime_error("cannot read " + path + ": run sh build.sh first");
        const std::string plan((std::istreambuf_iterator<char>(stream)), std::istreambuf_iterator<char>());
        runtime_.reset(nvinfer1::createInferRuntime(log_));
        if (runtime_) engine_.reset(runtime_->deserializeCudaEngine(plan.data(), plan.size()));
        if (engine_) context_.reset(engine_->createExecutionContext());
        if (!context_) throw std::runtime_error("TensorRT refuses " + path + ": run sh build.sh here");
        check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
        for (int32_t i = 0; i < engine_->getNbIOTensors(); ++i) {
            const std::string name = engine_->getIOTensorName(i);
            const bool input = engine_->getTensorIOMode(name.c_str()) == nvinfer1::TensorIOMode::kINPUT;
            (input ? inputs_ : outputs_).push_back(name);
        }
        if (inputs_.size() != 1) throw std::runtime_error(path + " does not have one input");
    }

    ~TensorRtSession() override {
        for (auto& place : memory_) cudaFree(place.second.pointer);
        if (stream_) cudaStreamDestroy(stream_);
    }

    std::string version() const override {
        const int32_t found = getInferLibVersion();  // major * 1000 up to version 8, major * 10000 from 10 on
        const int32_t scale = found >= 10000 ? 10000 : 1000;
        return "TensorRT " + std::to_string(found / scale) + "." + std::to_string(found % scale / 100) + "." +
               std::to_string(found % 100);
    }
    std::string provider() const override { return "TensorRT"; }
    int64_t batch() const override { return engine_->getTensorShape(inputs_[0].c_str()).d[0]; }

    std::map<std::string, Array> infer(const Array& input) override {
        nvinfer1::Dims dims{};
        dims.nbDims = static_cast<int32_t>(input.shape.size());
        for (size_t i = 0; i < input.shape.size(); ++i) dims.d[i] = static_cast<int32_t>(input.shape[i]);
        if (!context_->setInputShape(inputs_[0].c_str(), dims)) throw std::runtime_error("the engine takes no such batch");
        void* place = reserve(inputs_[0], input.bytes.size());
        check(cudaMemcpyAsync(place, input.bytes.data(), input.bytes.size(), cudaMemcpyHostToDevice, stream_));
        std::map<std::string, Array> results;
        for (const std::string& name : outputs_) {
            Array& array = results[name];
            const auto [dtype, item] = type_of(engine_->getTensorDataType(name.c_str()));
            array.dtype = dtype;
            const nvinfer1::Dims shape = context_->getTensorShape(name.c_str());
            array.shape.assign(shape.d, shape.d + shape.nbDims);
            array.bytes.resize(array.size() * item);
            reserve(name, array.bytes.size());
        }
        if (!context_->enqueueV3(stream_)) throw std::runtime_error("the engine did not run");
        for (auto& [name, array] : results) {
            void* source = memory_.at(name).pointer;
            check(cudaMemcpyAsync(array.bytes.data(), source, array.bytes.size(), cudaMemcpyDeviceToHost, stream_));
        }
        check(cudaStreamSynchronize(stream_));
        return results;
    }

   private:
    struct Log : nvinfer1::ILogger {
        void log(Severity severity, const char* message) noexcept override {
            if (severity <= Severity::kWARNING) std::cerr << message << '\n';
        }
    };
    struct Place {
        void* pointer = nullptr;
        size_t size = 0;
    };

    static void check(cudaError_t code) {
        if (code != cudaSuccess) throw std::runtime_error(std::string("CUDA: ") + cudaGetErrorString(code));
    }

    static std::pair<std::string, size_t> type_of(nvinfer1::DataType type) {
        switch (type) {
            case nvinfer1::DataType::kFLOAT: return {"<f4", 4};
            case nvinfer1::DataType::kINT32: return {"<i4", 4};
            default: throw std::runtime_error("an output is neither float32 nor int32");
        }
    }

    // Device memory for a tensor, kept until it needs more.
    void* reserve(const std::string& name, size_t size) {
        Place& place = memory_[name];
        if (place.size < size) {
            check(cudaFree(place.pointer));
            check(cudaMalloc(&place.pointer, size));
            place.size = size;
            context_->setTensorAddress(name.c_str(), place.pointer);
        }
        return place.pointer;
    }

    Log log_;
    std::unique_ptr<nvinfer1::IRuntime> runtime_;
    std::unique_ptr<nvinfer1::ICudaEngine> engine_;
    std::unique_ptr<nvinfer1::IExecutionContext> context_;
    cudaStream_t stream_ = nullptr;
    std::vector<std::string> inputs_, outputs_;
    std::map<std::string, Place> memory_;
};
