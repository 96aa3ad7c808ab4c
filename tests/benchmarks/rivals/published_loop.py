"""How the field trains RJCMA today: our own writing of facts about the public code of 002, as something to time.

Facts (G2a, G4a, G5 and G8 in docs/released.md): each window is files of its own, loaded and normalised one by one;
layers keep channels before frames and convolve padded windows under torch's weight norm; every frame of an epoch goes
through Python lists, whose means are the metrics; torch's Adam has its defaults; all of it is float32.

Legend: B batch, L frames of a window, D features, J joint features.
"""

import copy
import math
import pickle
import statistics
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

WINDOW = 300
HOP = 200
BATCH = 12
FUSED = {"visual": 256, "audio": 128, "text": 128}


class WindowFiles(Dataset):
    """A split whose windows lie in a folder each, as features of each modality and labels."""

    def __init__(self, folder: Path, modalities, statistics_of: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        self.folders = sorted(folder.iterdir())
        self.modalities = modalities
        self.statistics = statistics_of

    def __len__(self) -> int:
        return len(self.folders)

    def __getitem__(self, index: int):
        folder = self.folders[index]
        chosen = np.load(folder / "frames.npy")
        examples = {}
        for modality in self.modalities:
            values = torch.from_numpy(np.load(folder / f"{modality}.npy")[np.arange(len(chosen))]).float()
            mean, std = self.statistics[modality]
            examples[modality] = (values - mean) / std
        examples["label"] = torch.from_numpy(np.load(folder / "label.npy")[np.arange(len(chosen))]).float()
        return examples, folder.name.split("-")[0], len(chosen), chosen


def write_windows(source, store, folder: Path) -> WindowFiles:
    """The windows of a source as the files of each window, with the statistics that normalise them."""
    for index, rows in enumerate(source.windows.rows):
        clip = store.clips[int(np.searchsorted([store.rows(c.name).stop for c in store.clips], rows[0], "right"))].name
        place = folder / f"{clip}-{index:05d}"
        place.mkdir(parents=True)
        np.save(place / "frames.npy", rows - store.rows(clip).start)
        np.save(place / "label.npy", store.labels[rows][:, :1])
        for m in source.arrays.features:
            np.save(place / f"{m}.npy", store.features(m, 0)[rows])
    return WindowFiles(folder, tuple(source.arrays.features), source.arrays.statistics)


class ChompedConv(nn.Module):
    """A convolution of both-sided padding whose future frames are cut off again, then LeakyReLU and dropout."""

    def __init__(self, inputs: int, width: int, dilation: int) -> None:
        super().__init__()
        self.past = 4 * dilation
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            self.conv = nn.utils.weight_norm(nn.Conv1d(inputs, width, 5, padding=self.past, dilation=dilation))
        self.activation = nn.LeakyReLU()
        self.dropout = nn.Dropout(0.1)

    def forward(self, x_BDL: Tensor) -> Tensor:
        return self.dropout(self.activation(self.conv(x_BDL)[:, :, : -self.past].contiguous()))


class Level(nn.Module):
    """Two convolutions and a residual."""

    def __init__(self, inputs: int, width: int, dilation: int) -> None:
        super().__init__()
        self.convs = nn.Sequential(ChompedConv(inputs, width, dilation), ChompedConv(width, width, dilation))
        self.skip = nn.Conv1d(inputs, width, 1) if inputs != width else None
        self.activation = nn.LeakyReLU()

    def forward(self, x_BDL: Tensor) -> Tensor:
        return self.activation(self.convs(x_BDL) + (x_BDL if self.skip is None else self.skip(x_BDL)))


class JointLayer(nn.Module):
    """One iteration; its map of the joint features reaches nothing (G4a)."""

    def __init__(self, widths: Mapping[str, int]) -> None:
        super().__init__()
        joint = sum(widths.values())
        self.root = math.sqrt(joint)
        self.query = nn.Linear(joint, joint)
        self.over_time = nn.ModuleDict({m: nn.Linear(WINDOW, WINDOW) for m in widths})
        self.over_channels = nn.ModuleDict({m: nn.Linear(d, d) for m, d in widths.items()})
        self.back = nn.ModuleDict({m: nn.Linear(joint, d) for m, d in widths.items()})
        self.score_dropout, self.out_dropout = nn.Dropout(0.6), nn.Dropout(0.6)

    def forward(self, x: Mapping[str, Tensor]) -> dict[str, Tensor]:
        joint_BLJ = torch.cat(list(x.values()), dim=-1)
        self.query(joint_BLJ)
        attended = {}
        for m, x_BLD in x.items():
            key_BDL = self.over_time[m](x_BLD.transpose(1, 2))
            score_BDJ = self.score_dropout(torch.tanh(torch.bmm(key_BDL, joint_BLJ) / self.root))
            h_BLJ = torch.relu(torch.tanh(torch.bmm(self.over_channels[m](x_BLD), score_BDJ)))
            attended[m] = self.out_dropout(torch.relu(self.back[m](h_BLJ))) + x_BLD
        return attended


class PublishedModel(nn.Module):
    """TCN and batch norm of each modality, two iterations, and the head of one target: y : B x L x 1."""

    def __init__(self, inputs: Mapping[str, int], widths: Mapping[str, int], levels: int = 4) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict(
            {
                m: nn.Sequential(*(Level(inputs[m] if i == 0 else d, d, 2**i) for i in range(levels)))
                for m, d in widths.items()
            }
        )
        self.norms = nn.ModuleDict({m: nn.BatchNorm1d(d) for m, d in widths.items()})
        self.fusion = nn.ModuleList(JointLayer(widths) for _ in range(2))
        joint = sum(widths.values())
        self.hidden, self.norm, self.out = nn.Linear(joint, 256), nn.BatchNorm1d(256), nn.Linear(256, 1)
        self.activation = nn.LeakyReLU()

    def forward(self, x: Mapping[str, Tensor]) -> Tensor:
        encoded = {}
        for m, encoder in self.encoders.items():
            x_BDL = self.norms[m](encoder(x[m].transpose(1, 2).contiguous()))
            encoded[m] = x_BDL.transpose(1, 2).contiguous()
        for layer in self.fusion:
            encoded = layer(encoded)
        h_BLD = self.hidden(torch.cat(list(encoded.values()), dim=-1))
        h_BLD = self.norm(h_BLD.transpose(1, 2).contiguous()).transpose(1, 2).contiguous()
        return torch.tanh(self.out(self.activation(h_BLD)))


def ccc_loss(prediction_BL1: Tensor, label_BL1: Tensor) -> Tensor:
    """1 - CCC of each window, averaged."""
    means = prediction_BL1.mean(1, keepdim=True), label_BL1.mean(1, keepdim=True)
    covariance = ((prediction_BL1 - means[0]) * (label_BL1 - means[1])).mean(1, keepdim=True)
    spread = prediction_BL1.var(1, keepdim=True, unbiased=False) + label_BL1.var(1, keepdim=True, unbiased=False)
    return (1 - 2 * covariance / (spread + (means[0] - means[1]).square() + 1e-8)).mean()


class FrameLists:
    """What was predicted of each frame of each trial, in lists; a frame of two windows is the mean of both."""

    def __init__(self) -> None:
        self.of_trial: dict[str, list[list[np.ndarray]]] = {}

    def update(self, values_BL1: np.ndarray, trials, lengths, frames_BL: Tensor) -> None:
        for values_L1, trial, length, frames_L in zip(values_BL1, trials, lengths, frames_BL, strict=True):
            lists = self.of_trial.setdefault(trial, [])
            for place, frame in enumerate(frames_L):
                if place == length:
                    break
                while len(lists) <= frame:
                    lists.append([])
                lists[frame].append(values_L1[place].item())

    def means(self) -> dict[str, np.ndarray]:
        return {
            trial: np.array([statistics.mean(values) for values in lists if values])
            for trial, lists in self.of_trial.items()
        }


def ccc_of(predicted: np.ndarray, label: np.ndarray) -> float:
    """Of all frames of a partition, one after the other."""
    covariance = np.mean((predicted - predicted.mean()) * (label - label.mean()))
    return float(2 * covariance / (predicted.var() + label.var() + (predicted.mean() - label.mean()) ** 2))


class PublishedTrainer:
    """Epochs over loaders of `WindowFiles`; each ends with metrics, a pickle of predictions and a copy of the state."""

    def __init__(self, model: PublishedModel, training: WindowFiles, validation: WindowFiles, folder: Path) -> None:
        self.model = model
        self.optimizer = torch.optim.Adam(model.parameters(), lr=1e-5, weight_decay=1e-3)
        self.training = DataLoader(training, BATCH, shuffle=False, num_workers=0)
        self.validation = DataLoader(validation, BATCH, shuffle=False, num_workers=0)
        self.folder = folder

    def epoch(self) -> tuple[float, float]:
        """CCC of the training and of the validation split."""
        self.model.train()
        trained = self._pass(self.training, learn=True)
        self.model.eval()
        with torch.no_grad():
            validated = self._pass(self.validation, learn=False)
        self.best = copy.deepcopy(self.model.state_dict())
        return trained, validated

    def _pass(self, loader: DataLoader, *, learn: bool) -> float:
        outputs, labels = FrameLists(), FrameLists()
        loss_sum = 0.0
        for x, trials, lengths, frames_BL in loader:
            label_BL1 = x.pop("label")
            output_BL1 = self.model(x)
            loss = ccc_loss(output_BL1, label_BL1)
            loss_sum += loss.item() * len(trials)
            outputs.update(output_BL1.detach().numpy(), trials, lengths, frames_BL)
            labels.update(label_BL1.numpy(), trials, lengths, frames_BL)
            if learn:
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()
        found = [lists.means() for lists in (outputs, labels)]
        (self.folder / "frames.pkl").write_bytes(pickle.dumps(found))
        return ccc_of(*(np.concatenate([means[trial] for trial in sorted(means)]) for means in found))
