"""Makes analysis.json, the reference values for src/analysis.

    pip install numpy==2.4.6 scipy==1.17.1
    python tests/data/analysis.py > tests/data/analysis.json

Wilson intervals are scipy.stats.binomtest(...).proportion_ci(method="wilson"), the score interval without continuity
correction; quantiles of the normal distribution scipy.special.ndtri; percentiles numpy.percentile(method="linear").
"""
import json

import numpy as np
from scipy import special, stats

wilson = []
for successes, trials in [(81, 263), (15, 148), (0, 20), (1, 29), (29, 29), (1, 1), (0, 1), (19, 20), (95, 100), (9_990, 10_000), (3, 1_000_000)]:
    for confidence in [0.8, 0.9, 0.95, 0.99, 0.999]:
        ci = stats.binomtest(successes, trials).proportion_ci(confidence, method="wilson")
        wilson.append({"successes": successes, "trials": trials, "confidence": confidence, "low": ci.low, "high": ci.high})

normal = [{"p": p, "z": float(special.ndtri(p))} for p in [1e-300, 1e-100, 1e-20, 1e-9, 1e-5, 0.001, 0.02425, 0.025, 0.05, 0.074, 0.076, 0.2, 0.4, 0.5, 0.6, 0.9, 0.95, 0.975, 0.99, 0.995, 0.9995, 1 - 1e-9, 1 - 1e-15]]

rng = np.random.default_rng(20261123)
percentile = []
for n in [1, 2, 3, 5, 10, 101]:
    sample = sorted(float(x) for x in np.round(rng.lognormal(3, 1, n), 6))
    percentile.append({"sample": sample, "values": [{"q": q, "value": float(np.percentile(sample, q * 100, method="linear"))} for q in [0.0, 0.01, 0.25, 0.5, 0.9, 0.95, 0.99, 1.0]]})

print(json.dumps({"wilson": wilson, "normal": normal, "percentile": percentile}, indent=1))
