"""Makes statistics.json, the reference values for the tests and intervals of src/analysis.

    pip install numpy==2.4.6 scipy==1.17.1 pymannkendall==1.4.3
    python tests/data/statistics.py > tests/data/statistics.json

From scipy.stats: mannwhitneyu (asymptotic with continuity correction; exact; with ties all permutations), theilslopes,
quantile_test(...).confidence_interval, false_discovery_control(method="bh"), fisher_exact, norm.sf. From pymannkendall:
hamed_rao_modification_test. Where no library has a routine, it is computed here from its definition, slowly and in another
way than in Rust: Hodges-Lehmann shifts from all differences, their ranks from the null distribution by full enumeration or
recursion; the energy distance of E-divisive by double sums over all divisions and ends; the beta mixture by scipy's betaln
and a root finder.
"""
import json
from functools import lru_cache

import numpy as np
import pymannkendall
from scipy import optimize, special, stats

rng = np.random.default_rng(20261125)


def numbers(values, digits=6):
    return [float(x) for x in np.round(values, digits)]


def samples():
    for n, m in [(4, 4), (3, 5), (5, 10), (10, 10), (6, 30)]:
        yield numbers(rng.lognormal(3, 0.5, n)), numbers(rng.lognormal(3.3, 0.5, m))
    for n, m in [(4, 5), (5, 5), (6, 5)]:
        yield numbers(rng.integers(0, 6, n)), numbers(rng.integers(1, 8, m))
    for n, m in [(30, 40), (100, 57)]:
        yield numbers(rng.normal(50, 5, n)), numbers(rng.normal(52, 6, m))
        yield numbers(rng.integers(0, 10, n)), numbers(rng.integers(1, 11, m))
    # Hollander and Wolfe 1999, table 4.1: permeability of the chorioamnion at term and at 12 to 26 weeks.
    yield [1.15, 0.88, 0.90, 0.74, 1.21], [0.80, 0.83, 1.89, 1.04, 1.45, 1.38, 1.91, 1.64, 0.73, 1.46]


@lru_cache(maxsize=None)
def ways(n, m, u):
    """Arrangements of n and m values whose U is u: the recursion of Mann and Whitney."""
    if u < 0:
        return 0
    if n == 0 or m == 0:
        return int(u == 0)
    return ways(n - 1, m, u - m) + ways(n, m - 1, u)


def shift(first, second, confidence):
    differences = sorted(y - x for x in first for y in second)
    n, m = len(first), len(second)
    tail = (1 - confidence) / 2
    if n + m <= 40:
        total, below, rank = special.comb(n + m, n, exact=True), 0, 0
        while True:
            below += ways(n, m, rank)
            if below / total > tail:
                break
            rank += 1
    else:
        rank = int(np.floor(n * m / 2 + stats.norm.ppf(tail) * np.sqrt(n * m * (n + m + 1) / 12) + 0.5))
    interval = [differences[rank - 1], differences[n * m - rank]] if rank else None
    return {"confidence": confidence, "estimate": float(np.median(differences)), "interval": interval}


rank_sum = []
for first, second in samples():
    ties = len(set(first + second)) < len(first + second)
    if len(first) + len(second) > 40:
        test = stats.mannwhitneyu(second, first, alternative="two-sided", method="asymptotic", use_continuity=True)
    elif ties:
        test = stats.mannwhitneyu(second, first, alternative="two-sided", method=stats.PermutationMethod(n_resamples=np.inf))
    else:
        test = stats.mannwhitneyu(second, first, alternative="two-sided", method="exact")
    rank_sum.append({
        "first": first, "second": second, "u": float(test.statistic), "p": float(test.pvalue), "exact": len(first) + len(second) <= 40,
        "shifts": [shift(first, second, confidence) for confidence in [0.8, 0.95, 0.99]],
    })

quantile_interval = []
for n in [1, 5, 6, 20, 100, 367, 368, 1000]:
    sample = sorted(numbers(rng.lognormal(3, 1, n)))
    for q in [0.5, 0.9, 0.95, 0.99]:
        ci = stats.quantile_test(sample, q=0, p=q).confidence_interval(0.95)
        end = lambda value: None if np.isnan(value) else float(value)
        quantile_interval.append({"sample": sample, "q": q, "low": end(ci.low), "high": end(ci.high)})

false_discovery = []
for count in [1, 2, 5, 20]:
    p = numbers(rng.uniform(0, 1, count) ** 3, 12)
    false_discovery.append({"p": p, "adjusted": [float(x) for x in stats.false_discovery_control(p, method="bh")]})

theil_sen = []
for n in [2, 5, 12, 60]:
    for rounded in [False, True]:
        x = numbers(np.cumsum(rng.uniform(0.5, 2, n)))
        y = numbers(3 + 0.2 * np.array(x) + rng.normal(0, 1, n), 0 if rounded else 6)
        for confidence in [0.9, 0.95]:
            fit = stats.theilslopes(y, x, alpha=confidence)
            theil_sen.append({"x": x, "y": y, "confidence": confidence, "slope": float(fit.slope), "low": float(fit.low_slope), "high": float(fit.high_slope), "intercept": float(fit.intercept)})

mann_kendall = []
for n in [10, 30, 100, 250]:
    for phi in [0.0, 0.5, 0.8]:
        noise = rng.normal(0, 1, n)
        y = [noise[0]]
        for e in noise[1:]:
            y.append(phi * y[-1] + e)
        y = numbers(np.array(y) + 0.01 * np.arange(n), 1 if phi == 0.5 else 6)
        test = pymannkendall.hamed_rao_modification_test(np.array(y))
        plain = pymannkendall.original_test(np.array(y))
        mann_kendall.append({"y": y, "s": float(test.s), "tau": float(test.Tau), "p": float(test.p), "inflation": float(test.var_s / plain.var_s), "plain_p": float(plain.p)})

fisher = []
for one, other in [((8, 10), (1, 6)), ((3, 4), (1, 4)), ((0, 5), (5, 5)), ((0, 40), (3, 200)), ((12, 50), (9, 950)), ((1, 1), (0, 1)), ((0, 3), (0, 9)), ((50, 400), (60, 500))]:
    table = [[one[0], one[1] - one[0]], [other[0], other[1] - other[0]]]
    fisher.append({"one": one, "other": other, "p": float(stats.fisher_exact(table).pvalue)})


def energy(x, y):
    between = np.abs(np.subtract.outer(x, y)).mean() * 2
    within = lambda z: np.abs(np.subtract.outer(z, z)).sum() / (len(z) * (len(z) - 1))
    return len(x) * len(y) / (len(x) + len(y)) * (between - within(x) - within(y))


energy_distance = []
for n, at, step in [(10, 5, 3.0), (24, 9, 2.0), (40, 25, 0.0)]:
    y = np.array(numbers(rng.normal(0, 1, n) + step * (np.arange(n) >= at), 3))
    for min_size in [2, 5]:
        best = max((energy(y[:t], y[t:e]), t) for t in range(min_size, n - min_size + 1) for e in range(t + min_size, n + 1))
        energy_distance.append({"y": list(y), "min_size": min_size, "at": best[1], "distance": float(best[0])})

anytime = []
for successes, trials, expected in [(0, 1, 0.5), (40, 40, 0.9), (81, 81, 0.95), (80, 80, 0.95), (95, 100, 0.95), (9990, 10000, 0.999), (3, 50, 0.2)]:
    s, f, rarer = successes, trials - successes, min(expected, 1 - expected)
    a, b = expected / rarer / 2, (1 - expected) / rarer / 2
    log = special.xlogy
    excess = lambda p: special.betaln(a + s, b + f) - special.betaln(a, b) - log(s, p) - log(f, 1 - p) - np.log(20)
    share, edge = s / trials, 1e-15
    low = optimize.brentq(excess, edge, share) if s and excess(edge) > 0 else 0.0
    high = optimize.brentq(excess, share, 1 - edge) if f and excess(1 - edge) > 0 else 1.0
    if not s:
        high = optimize.brentq(excess, edge, 1 - edge)
    if not f:
        low = optimize.brentq(excess, edge, 1 - edge)
    anytime.append({"successes": successes, "trials": trials, "expected": expected, "low": float(low), "high": float(high)})

upper_tail = [{"z": z, "p": float(stats.norm.sf(z))} for z in [-8.0, -1.0, 0.0, 0.5, 1.96, 5.0, 20.0]]

tables = {
    "rank_sum": rank_sum, "quantile_interval": quantile_interval, "false_discovery": false_discovery, "theil_sen": theil_sen,
    "mann_kendall": mann_kendall, "fisher": fisher, "energy_distance": energy_distance, "anytime": anytime, "upper_tail": upper_tail,
}
# A row a line.
rows = lambda table: ",\n".join(json.dumps(row) for row in table)
print("{" + ",\n".join(f'"{name}": [\n{rows(table)}\n]' for name, table in tables.items()) + "}")
