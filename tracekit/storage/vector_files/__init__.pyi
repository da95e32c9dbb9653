from tracekit.storage.vector_files.gguf_file import read_gguf, write_gguf
from tracekit.storage.vector_files.pt_file import read_pt
from tracekit.storage.vector_files.safetensors_file import read_safetensors, write_safetensors

__all__ = ["read_gguf", "read_pt", "read_safetensors", "write_gguf", "write_safetensors"]
