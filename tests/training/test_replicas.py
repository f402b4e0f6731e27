"""Parts of a batch give the gradients of the whole batch."""

import torch
from torch import nn

from dqecir.training.replicas import Replicas


def loss_of(modules, part):
    return modules(part).square().mean()


def test_the_gradients_are_those_of_the_whole_batch():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))
    batch = torch.randn(8, 3)
    whole = loss_of(network, batch)
    wanted = torch.autograd.grad(whole, list(network.parameters()))
    replicas = Replicas(network, 2)
    for _ in range(2):  # earlier gradients are not added
        network.zero_grad()
        loss = replicas.learn(loss_of, [batch[:4], batch[4:]])
        torch.testing.assert_close(loss, whole.detach())
        for weight, gradient in zip(network.parameters(), wanted, strict=True):
            torch.testing.assert_close(weight.grad, gradient)


def test_copies_follow_the_weights_and_share_their_statistics():
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    replicas = Replicas(network, 2)
    with torch.no_grad():
        network[0].weight.zero_()
        network[0].bias.copy_(torch.tensor([1.0, 2.0]))
    replicas.learn(loss_of, [torch.zeros(4, 2), torch.ones(4, 2)])
    torch.testing.assert_close(network[1].running_mean, torch.tensor([0.1, 0.2]))
    assert not torch.equal(replicas.copies[0][1].running_var, torch.ones(2)) and network.training
