"""Train a small network on scikit-learn's digits; alone or as one rank of a gang.

This is a user's script: the two lines that make it resumable are the ``Session`` and its
``steps``. Outside Lowtide it just trains.
"""

import argparse
import os
import time

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import TensorDataset

from checkpointing import ResumableLoader, Session


def networks(kind: str) -> nn.Module:
    """Give a fresh network; dropout makes the random state part of the result."""
    if kind == "cnn":
        return nn.Sequential(
            nn.Unflatten(1, (1, 8)),
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.2),
            nn.Linear(16 * 64, 10),
        )
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 256), nn.ReLU(), nn.Dropout(0.3), nn.Linear(256, 10)
    )


def main() -> None:
    """Train, report the accuracy and a digest of the final weights."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--network", default="mlp", choices=["mlp", "cnn"])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pace", type=float, default=0.0, help="seconds a step takes at least")
    args = parser.parse_args()

    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    gang = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if gang:
        dist.init_process_group("gloo")

    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32) / 16
    labels = torch.tensor(digits.target)
    loader = ResumableLoader(TensorDataset(images, labels), batch_size=64, seed=args.seed)
    model = networks(args.network)
    trained = nn.parallel.DistributedDataParallel(model) if gang else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    criterion = nn.CrossEntropyLoss()

    with Session(model=model, optimizer=optimizer, loader=loader) as session:
        for step in session.steps(args.steps):
            began = time.monotonic()
            batch, target = next(loader)
            loss = criterion(trained(batch), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step % 50 == 0:
                print(f"step {step} loss {loss.item():.4f}", flush=True)
            time.sleep(max(0.0, args.pace - (time.monotonic() - began)))

    if not gang or dist.get_rank() == 0:
        model.eval()
        with torch.no_grad():
            accuracy = (model(images).argmax(1) == labels).float().mean().item()
        print(f"accuracy {accuracy:.4f}")
        print(f"weights blake3 {session.final_digest()}", flush=True)
    if gang:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
