package ckpt

// The files of a LoRA adapter in PEFT's format.
const (
	AdapterFile   = "adapter_model.safetensors"
	AdapterConfig = "adapter_config.json"
)
