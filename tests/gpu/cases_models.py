"""Models of other packages with random weights and small shapes: inference and training as their users write it."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from harness import Skip, need, note
from torch_case import DEVICE, need_gpu, synchronize, to_bytes, torch_register

CASES, case = torch_register()
VOCABULARY = 1024
TINY = dict(vocab_size=VOCABULARY, hidden_size=256, num_hidden_layers=3, num_attention_heads=8, num_key_value_heads=2, max_position_embeddings=256)


def tokens(*shape: int) -> torch.Tensor:
    return torch.randint(3, VOCABULARY, shape, device=DEVICE)


def llama(dtype=torch.bfloat16):
    transformers = need("transformers")
    config = transformers.LlamaConfig(**TINY, intermediate_size=704)
    return transformers.LlamaForCausalLM(config).to(DEVICE, dtype).eval()


def decode(model, prompt, cache, steps: int = 8):
    """Greedy, as a serving loop writes it: the prompt, then a token at a time. The tokens and the last logits."""
    logits, chosen = model(prompt, past_key_values=cache, use_cache=True).logits, []
    for _ in range(steps):
        chosen.append(logits[:, -1:].argmax(-1))
        logits = model(chosen[-1], past_key_values=cache, use_cache=True).logits
    return torch.cat(chosen, 1), logits


def train(optimizer, loss_of, watched, scaler=None):
    """A training step; returns the loss and the weights `watched`."""

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of()
        if scaler is None:
            loss.backward()
            optimizer.step()
        else:
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
        return loss, *watched

    return step


@case
def llama_prefill():
    """Llama: prefill of 4 x 128 tokens"""
    model, prompt = llama(), tokens(4, 128)
    return torch.no_grad()(lambda: model(prompt, use_cache=False).logits)


@case
def llama_decode_dynamic_cache():
    """Llama: eager decode, KV cache that grows"""
    model, prompt, transformers = llama(), tokens(4, 32), need("transformers")
    return torch.no_grad()(lambda: decode(model, prompt, transformers.DynamicCache(config=model.config)))


@case
def llama_decode_static_cache():
    """Llama: eager decode, KV cache of fixed size"""
    model, prompt, transformers = llama(), tokens(4, 32), need("transformers")
    cache = transformers.StaticCache(config=model.config, max_cache_len=64)

    @torch.no_grad()
    def step():
        cache.reset()
        return decode(model, prompt, cache)

    return step


@case
def llama_generate_greedy():
    """Llama: generate(), greedy"""
    model, prompt = llama(), tokens(2, 16)
    options = dict(max_new_tokens=12, min_new_tokens=12, do_sample=False, pad_token_id=0, eos_token_id=2)
    return torch.no_grad()(lambda: model.generate(prompt, attention_mask=torch.ones_like(prompt), **options))


@case
def llama_generate_sampled():
    """Llama: generate(), sampled with top-k and top-p"""
    model, prompt = llama(), tokens(2, 16)
    options = dict(max_new_tokens=12, min_new_tokens=12, do_sample=True, top_k=50, top_p=0.9, pad_token_id=0, eos_token_id=2)
    return torch.no_grad()(lambda: model.generate(prompt, attention_mask=torch.ones_like(prompt), **options))


def mixture(name: str, **extra):
    transformers = need("transformers")
    config = getattr(transformers, f"{name}Config")(
        **TINY, intermediate_size=512, moe_intermediate_size=128, num_experts=8, num_experts_per_tok=2, **extra)
    model, prompt = getattr(transformers, f"{name}ForCausalLM")(config).to(DEVICE, torch.bfloat16).eval(), tokens(2, 32)
    return torch.no_grad()(lambda: decode(model, prompt, transformers.DynamicCache(config=model.config), steps=3))


@case
def qwen2_moe():
    """Qwen2-MoE: prefill and decode"""
    return mixture("Qwen2Moe", shared_expert_intermediate_size=256)


@case
def qwen3_moe():
    """Qwen3-MoE: prefill and decode"""
    return mixture("Qwen3Moe", head_dim=32)


@case
def vit():
    """ViT: image classification"""
    transformers = need("transformers")
    config = transformers.ViTConfig(hidden_size=192, num_hidden_layers=4, num_attention_heads=3, intermediate_size=768, image_size=64)
    model = transformers.ViTForImageClassification(config).to(DEVICE).eval()
    images = torch.randn(8, 3, 64, 64, device=DEVICE)
    return torch.no_grad()(lambda: model(images).logits)


@case
def whisper():
    """Whisper: encoder, then greedy decode with cross-attention"""
    transformers = need("transformers")
    config = transformers.WhisperConfig(
        vocab_size=VOCABULARY, d_model=128, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4,
        encoder_ffn_dim=512, decoder_ffn_dim=512, max_source_positions=100, max_target_positions=64, pad_token_id=0, bos_token_id=1,
        eos_token_id=2, decoder_start_token_id=1, suppress_tokens=None, begin_suppress_tokens=None)
    model = transformers.WhisperForConditionalGeneration(config).to(DEVICE).eval()
    sound = torch.randn(2, config.num_mel_bins, 200, device=DEVICE)

    @torch.no_grad()
    def step():
        heard = model.model.encoder(sound)
        cache = transformers.EncoderDecoderCache(transformers.DynamicCache(), transformers.DynamicCache())
        token, chosen = torch.ones(2, 1, dtype=torch.long, device=DEVICE), []
        for _ in range(6):
            out = model(encoder_outputs=heard, decoder_input_ids=token, past_key_values=cache, use_cache=True)
            token = out.logits[:, -1:].argmax(-1)
            chosen.append(token)
        return torch.cat(chosen, 1), out.logits

    return step


@case
def bert_training():
    """BERT: training steps with dropout, AdamW, clipped gradients"""
    transformers = need("transformers")
    config = transformers.BertConfig(vocab_size=VOCABULARY, hidden_size=128, num_hidden_layers=2, num_attention_heads=4,
                                     intermediate_size=512, max_position_embeddings=64, num_labels=4)
    config._attn_implementation = "eager"
    model = transformers.BertForSequenceClassification(config).to(DEVICE).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=DEVICE == "cuda")
    ids, labels = tokens(16, 48), torch.randint(0, 4, (16,), device=DEVICE)

    def step():
        optimizer.zero_grad()
        loss = model(ids, labels=labels).loss
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss, norm, model.classifier.weight

    return step


@case
def lora():
    """LoRA by peft: training steps of the adapters, then the merged model"""
    peft = need("peft")
    base = llama(torch.float32)
    base.set_attn_implementation("eager")
    model = peft.get_peft_model(base, peft.LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"])).train()
    trained = [p for p in model.parameters() if p.requires_grad]
    ids = tokens(2, 32)
    step = train(torch.optim.AdamW(trained, lr=1e-2), lambda: model(ids, labels=ids).loss, trained[:4])

    def steps():
        out = step()
        with torch.no_grad():
            model.merge_adapter()
            merged = model(ids).logits
            model.unmerge_adapter()
        return out, merged

    return steps


@case
def accelerate_training():
    """accelerate: a prepared model, optimizer and loader, bf16, accumulated gradients"""
    accelerate = need("accelerate")
    accelerator = accelerate.Accelerator(mixed_precision="bf16", gradient_accumulation_steps=2, cpu=DEVICE == "cpu")
    net = torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.GELU(), torch.nn.Linear(256, 8))
    data = [(torch.randn(64), torch.randint(0, 8, ())) for _ in range(64)]
    loader = torch.utils.data.DataLoader(data, batch_size=16)
    net, optimizer, loader = accelerator.prepare(net, torch.optim.SGD(net.parameters(), lr=0.1), loader)

    def step():
        for x, y in loader:
            with accelerator.accumulate(net):
                loss = F.cross_entropy(net(x), y)
                accelerator.backward(loss)
                optimizer.step()
                optimizer.zero_grad()
        return loss, *net.parameters()

    return step


@case
def timm_resnet_training():
    """timm ResNet-18: training steps, mixed precision, channels_last"""
    timm = need("timm")
    net = timm.create_model("resnet18", pretrained=False, num_classes=10).to(DEVICE, memory_format=torch.channels_last).train()
    x = torch.randn(16, 3, 64, 64, device=DEVICE).to(memory_format=torch.channels_last)
    y = torch.randint(0, 10, (16,), device=DEVICE)

    def loss_of():
        with torch.autocast(DEVICE, dtype=torch.float16 if DEVICE == "cuda" else torch.bfloat16):
            return F.cross_entropy(net(x), y)

    scaler = torch.amp.GradScaler(DEVICE, init_scale=1024.0)
    return train(torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9), loss_of, [net.conv1.weight, net.fc.weight], scaler)


@case
def geometric_gcn():
    """torch_geometric: a graph convolution network, training steps"""
    need("torch_geometric")
    nn = need("torch_geometric.nn")
    first, second = nn.GCNConv(32, 64).to(DEVICE), nn.GCNConv(64, 7).to(DEVICE)
    x, y = torch.randn(300, 32, device=DEVICE), torch.randint(0, 7, (300,), device=DEVICE)
    edges = torch.randint(0, 300, (2, 2400), device=DEVICE)
    optimizer = torch.optim.Adam([*first.parameters(), *second.parameters()], lr=0.01)
    return train(optimizer, lambda: F.cross_entropy(second(F.relu(first(x, edges)), edges), y), [*second.parameters()])


@case
def vision_operators():
    """torchvision: boxes suppressed, regions aligned, deformable convolution"""
    ops = need("torchvision.ops")
    # Forward passes are deterministic anyway, and torchvision would compile one of them anew.
    torch.use_deterministic_algorithms(False)
    corner, size = torch.rand(200, 2, device=DEVICE) * 40, torch.rand(200, 2, device=DEVICE) * 20 + 1
    boxes, scores = torch.cat([corner, corner + size], 1), torch.rand(200, device=DEVICE)
    features, offset = torch.randn(1, 8, 32, 32, device=DEVICE), torch.randn(1, 18, 32, 32, device=DEVICE)
    weight = torch.randn(4, 8, 3, 3, device=DEVICE)

    def step():
        kept = ops.nms(boxes, scores, 0.5)
        regions = ops.roi_align(features, [boxes[kept[:16]]], output_size=7, spatial_scale=0.5)
        return kept, regions, ops.deform_conv2d(features, offset, weight, padding=1)

    return step


@case
def audio_spectrogram():
    """torchaudio: mel spectrogram (cuFFT) and resampling"""
    need("torchaudio")
    transforms = need("torchaudio.transforms")
    mel = transforms.MelSpectrogram(sample_rate=16000, n_fft=400, n_mels=64).to(DEVICE)
    resample = transforms.Resample(16000, 8000).to(DEVICE)
    sound = torch.randn(2, 16000, device=DEVICE)
    return lambda: (mel(sound), resample(sound))


@case
def onnx_runtime():
    """ONNX Runtime: CUDA provider"""
    need_gpu()
    runtime, helper, types = need("onnxruntime"), need("onnx.helper"), need("onnx").TensorProto
    if "CUDAExecutionProvider" not in runtime.get_available_providers():
        raise Skip("the onnxruntime package has no CUDA provider")
    io = [helper.make_tensor_value_info(name, types.FLOAT, [64, 64]) for name in "abc"]
    graph = helper.make_graph([helper.make_node("MatMul", ["a", "b"], ["c"])], "product", io[:2], io[2:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CUDAExecutionProvider"])
    note("providers", session.get_providers())
    if session.get_providers()[0] != "CUDAExecutionProvider":
        raise Skip("ONNX Runtime's CUDA provider does not load")
    a = torch.randn(64, 64).numpy()
    return lambda: session.run(None, {"a": a, "b": a})[0].tobytes()
