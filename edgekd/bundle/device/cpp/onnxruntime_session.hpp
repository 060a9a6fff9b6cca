// ONNX Runtime on the processor, through its C++ API.
#pragma once

#include <onnxruntime_cxx_api.h>

#include "session.hpp"

class OnnxRuntimeSession : public Session {
   public:
    // Not `optimised`, it computes what the graph says, operator by operator.
    OnnxRuntimeSession(const std::string& path, int threads, bool optimised)
        : env_(ORT_LOGGING_LEVEL_ERROR, "runner"), session_(nullptr) {
        Ort::SessionOptions options;
        if (threads > 0) {
            options.SetIntraOpNumThreads(threads);
            options.SetInterOpNumThreads(1);
        }
        options.SetGraphOptimizationLevel(optimised ? ORT_ENABLE_ALL : ORT_DISABLE_ALL);
        session_ = Ort::Session(env_, path.c_str(), options);
        Ort::AllocatorWithDefaultOptions allocator;
        input_ = session_.GetInputNameAllocated(0, allocator).get();
        const Ort::TypeInfo info = session_.GetInputTypeInfo(0);
        batch_ = info.GetTensorTypeAndShapeInfo().GetShape().at(0);
        for (size_t i = 0; i < session_.GetOutputCount(); ++i) {
            outputs_.emplace_back(session_.GetOutputNameAllocated(i, allocator).get());
        }
    }

    std::string version() const override { return "ONNX Runtime " + Ort::GetVersionString(); }
    std::string provider() const override { return "CPUExecutionProvider"; }
    int64_t batch() const override { return batch_; }

    std::map<std::string, Array> infer(const Array& input) override {
        const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
        const auto type = input.dtype == "<f4"   ? ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT
                          : input.dtype == "|u1" ? ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8
                                                 : ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
        const auto value = Ort::Value::CreateTensor(memory, const_cast<char*>(input.bytes.data()), input.bytes.size(),
                                                    input.shape.data(), input.shape.size(), type);
        const char* input_name = input_.c_str();
        std::vector<const char*> names;
        for (const std::string& name : outputs_) names.push_back(name.c_str());
        const auto values = session_.Run(Ort::RunOptions{nullptr}, &input_name, &value, 1, names.data(), names.size());
        std::map<std::string, Array> results;
        for (size_t i = 0; i < values.size(); ++i) results[outputs_[i]] = to_array(values[i]);
        return results;
    }

   private:
    static Array to_array(const Ort::Value& value) {
        const auto info = value.GetTensorTypeAndShapeInfo();
        Array array;
        array.shape = info.GetShape();
        size_t item = 0;
        switch (info.GetElementType()) {
            case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT: array.dtype = "<f4", item = 4; break;
            case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64: array.dtype = "<i8", item = 8; break;
            case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32: array.dtype = "<i4", item = 4; break;
            default: throw std::runtime_error("an output is neither float32 nor an integer");
        }
        const char* data = static_cast<const char*>(value.GetTensorRawData());
        array.bytes.assign(data, data + info.GetElementCount() * item);
        return array;
    }

    Ort::Env env_;
    Ort::Session session_;
    std::string input_;
    std::vector<std::string> outputs_;
    int64_t batch_ = -1;
};
