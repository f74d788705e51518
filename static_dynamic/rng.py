"""Random number streams: every random choice uses a generator with an explicit seed, never global state.

`generator` makes the streams of a clip. Their numbers depend only on the seed, the clip and the purpose, not
on the number of workers, on sharding, or on which other clips are listed.

All streams of the project, by file. ``seed`` is the option of that name. ``clip(PURPOSE)`` stands for
``generator(seed, clip id, PURPOSE)``, and ``rng(...)`` for ``numpy.random.default_rng(...)``.

    what is drawn                                          stream
    ---------------------------------------------------------------------------------------------------
    datasets/views.py
      start of the window of frames                        clip("window")
      shuffled frame order, per pathway                    clip("order PATHWAY")
      factor of the only pair of a clip (pairs=paper)      rank of digest(seed, clip id, "rank"), even or odd
      two styles of a clip (pairs=both, paper)             clip("styles"); k-th repeat: clip("styles k")
      partner of the same class (m_same=false)             clip("same class")
      partner of another class (app_shuffle=false)         clip("other class")
      k-th further frame, networks that see flow           clip("other frame k")
      jitter of the flow images of a view                  clip("flow STYLE ALTERATION")
    models/registry.py
      random weights of a network                          torch.manual_seed(seed) in fork_rng
    analysis/estimate/ and its folder information/ (clusters, i.e. videos, in the order of their names)
      intervals.py: bootstrap replicates                   rng(seed)
      paired.py: replicates of two compared runs           rng(seed); unpaired: rng([seed, 1 + run number])
      permutation.py: permutations for factor f            rng([seed, f])
      subspace.py: the same in fold k; the two folds       rng([seed, f, k]); rng([seed, 3])
      cka.py: batches of clusters; their permutations      rng(seed); rng([seed, 1])
      neighbours.py: ties, jackknife groups, permutations  rng([seed, 2]), again for each unit and factor
      gaussian.py: jackknife groups of the rank bias       rng(0)
      convergence.py: order in which clusters are added    rng(seed)
    stylize/
      trainer.py: weights of generator and discriminator   torch.manual_seed(seed) in fork_rng
      patches.py: midpoints of key frame i in turn t       rng((seed, 1, i, t))
      patches.py: true example of item n                   rng((seed, 2, n))
      temporal.py: points of the Gaussian guide            rng(seed)
    misc/prepare_subset.py
      random key of an annotation entry                    generator(seed, entry id, "subset")
    bench/
      simulated runs, videos and images                    fixed seeds; timed inputs: torch's global generator
"""

import hashlib

import numpy as np


def generator(seed: int, clip: str, purpose: str) -> np.random.Generator:
    """Return a random generator that depends only on the seed, the clip and the purpose."""
    return np.random.default_rng(list(digest(seed, clip, purpose)))


def digest(seed: int, clip: str, purpose: str) -> bytes:
    """Return 32 pseudorandom bytes that depend only on the seed, the clip and the purpose."""
    return hashlib.sha256(f"{seed}|{clip}|{purpose}".encode()).digest()
