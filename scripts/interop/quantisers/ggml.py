"""GGUF: blocks of ggml's types as the gguf package writes and reads them."""
import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType, quants


class Blocks:
    """A file of matrices in one block type, the others in f32, under any names."""

    def __init__(self, kind, architecture="flux"):
        self.name, self.kind, self.architecture = f"GGUF {kind}", GGMLQuantizationType[kind], architecture

    def save(self, path, weights, quantised):
        """Writes all weights to a file, those of these names as blocks."""
        writer = gguf.GGUFWriter(path, self.architecture)
        for name, weight in weights.items():
            values = weight.float().numpy()
            if name in quantised:
                writer.add_tensor(name, quants.quantize(values, self.kind), raw_dtype=self.kind)
            else:
                writer.add_tensor(name, values)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()

    def load(self, path):
        """All weights of a file in f32."""
        found = {}
        for tensor in gguf.GGUFReader(path).tensors:
            shape = [int(size) for size in reversed(tensor.shape)]
            values = quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
            found[tensor.name] = torch.from_numpy(values.reshape(shape))
        return found
