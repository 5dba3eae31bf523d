"""PyTorch cases: inference, training, mixed precision, streams, copies, graphs and compilation."""

from __future__ import annotations

import torch
import torch.nn as nn
import torch.nn.functional as F

from harness import register
from torch_case import synchronize, to_bytes

CASES, case = register(lambda: torch.manual_seed(1234))


@case
def eager_mlp():
    net = nn.Sequential(nn.Linear(1024, 4096), nn.GELU(), nn.Linear(4096, 1024)).cuda().eval()
    x = torch.randn(64, 1024, device="cuda")

    @torch.no_grad()
    def step():
        return net(x)

    return step


@case
def small_op_repeated():
    x = torch.randn(1024, device="cuda")

    def step():
        y = x
        for _ in range(100):
            y = y * 1.0001 + 0.5
        return y

    return step


@case
def convolution():
    torch.backends.cudnn.benchmark = False
    net = nn.Sequential(nn.Conv2d(3, 64, 7, 2, 3), nn.BatchNorm2d(64), nn.ReLU(), nn.Conv2d(64, 128, 3, padding=1),
                        nn.ReLU(), nn.AdaptiveAvgPool2d(1)).cuda().eval()
    x = torch.randn(16, 3, 128, 128, device="cuda")

    @torch.no_grad()
    def step():
        return net(x)

    return step


@case
def sdpa():
    q, k, v = (torch.randn(4, 16, 512, 64, device="cuda", dtype=torch.bfloat16) for _ in range(3))
    return lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True)


@case
def transformer_encoder():
    layer = nn.TransformerEncoderLayer(512, 8, 2048, batch_first=True, dropout=0.0)
    net = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False).cuda().eval()
    x = torch.randn(8, 128, 512, device="cuda")

    @torch.no_grad()
    def step():
        return net(x)

    return step


@case
def training_embedding_layernorm_adamw():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.norm, self.head = nn.Embedding(1000, 256), nn.LayerNorm(256), nn.Linear(256, 1000)

        def forward(self, tokens):
            return self.head(self.norm(self.embedding(tokens)))

    net = Model().cuda()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    tokens, labels = torch.randint(0, 1000, (32, 64), device="cuda"), torch.randint(0, 1000, (32, 64), device="cuda")
    torch.use_deterministic_algorithms(True, warn_only=True)

    def step():
        optimizer.zero_grad()
        loss = F.cross_entropy(net(tokens).flatten(0, 1), labels.flatten())
        loss.backward()
        optimizer.step()
        return loss, net.head.weight, net.embedding.weight

    return step


@case
def amp_training():
    net = nn.Sequential(nn.Linear(512, 1024), nn.ReLU(), nn.Linear(1024, 10)).cuda()
    optimizer, scaler = torch.optim.SGD(net.parameters(), lr=0.1), torch.amp.GradScaler("cuda")
    x, y = torch.randn(128, 512, device="cuda"), torch.randint(0, 10, (128,), device="cuda")

    def step():
        optimizer.zero_grad()
        with torch.autocast("cuda", dtype=torch.float16):
            loss = F.cross_entropy(net(x), y)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return loss, net[0].weight

    return step


@case
def multi_stream_with_events():
    streams = [torch.cuda.Stream() for _ in range(3)]
    x = torch.randn(512, 512, device="cuda")
    events = [torch.cuda.Event(enable_timing=True) for _ in range(4)]

    def step():
        main = torch.cuda.current_stream()
        events[3].record(main)
        parts = []
        for i, stream in enumerate(streams):
            stream.wait_event(events[3])
            with torch.cuda.stream(stream):
                y = x * (i + 1)
                for _ in range(4):
                    y = (y @ x) * 0.01
                parts.append(y)
                events[i].record(stream)
        for event in events[:3]:
            main.wait_event(event)
        total = sum(parts)
        torch.cuda.synchronize()
        assert events[3].elapsed_time(events[0]) >= 0
        return total

    return step


@case
def pinned_copies():
    host = torch.randn(4 << 20).pin_memory()
    back = torch.empty(4 << 20, pin_memory=True)

    def step():
        device = host.to("cuda", non_blocking=True)
        device = device * 2 + 1
        back.copy_(device, non_blocking=True)
        torch.cuda.synchronize()
        return back.clone(), host.cuda().sum()

    return step


@case
def item():
    x = torch.randn(4096, device="cuda")

    def step():
        total = 0.0
        for i in range(20):
            total += (x * i).sum().item()
        return total

    return step


@case
def cuda_graph():
    net = nn.Sequential(nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 256)).cuda().eval()
    x = torch.randn(32, 256, device="cuda")
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side), torch.no_grad():
        for _ in range(3):
            net(x)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph), torch.no_grad():
        y = x
        for _ in range(8):
            y = net(y) + x
    counter = torch.zeros((), device="cuda")

    def step():
        counter.add_(1)
        x.mul_(0.9).add_(counter * 0.01)
        graph.replay()
        return y.clone()

    return step


@case
def cuda_graph_training():
    net = nn.Linear(256, 256).cuda()
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-2)
    x, target = torch.randn(64, 256, device="cuda"), torch.randn(64, 256, device="cuda")
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            optimizer.zero_grad(set_to_none=True)
            F.mse_loss(net(x), target).backward()
            optimizer.step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    optimizer.zero_grad(set_to_none=True)
    with torch.cuda.graph(graph):
        loss = F.mse_loss(net(x), target)
        loss.backward()
        optimizer.step()

    def step():
        graph.replay()
        return loss.clone(), net.weight.clone()

    return step


@case
def torch_compile():
    net = nn.Sequential(nn.Linear(256, 512), nn.GELU(), nn.LayerNorm(512), nn.Linear(512, 256)).cuda().eval()
    compiled = torch.compile(net)
    x = torch.randn(32, 256, device="cuda")

    @torch.no_grad()
    def step():
        return compiled(x)

    return step


@case
def sort_cumsum_index():
    x = torch.randn(1 << 18, device="cuda")
    index = torch.randint(0, 1 << 18, (1 << 16,), device="cuda")
    return lambda: (*torch.sort(x), torch.cumsum(x[:4096], 0), x[index], x.topk(100).values, torch.unique(index % 997))


@case
def random_and_reductions():
    generator = torch.Generator("cuda").manual_seed(7)

    def step():
        x = torch.rand(1 << 20, device="cuda", generator=generator)
        return x.mean(), x.std(), x.max(), torch.randperm(1000, device="cuda", generator=generator)

    return step
