"""Does a score rank the chosen candidates first? Areas under the ROC curve, and scores combined by logistic regression.

Rows are networks, columns the candidates (frequencies). An area of 1 ranks every chosen candidate above all others, 1/2
is chance. Scores are compared within a network only, so their scale does not matter.
"""

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
from scipy import optimize, special, stats


def areas(
    scores: Float[ndarray, "*curves n candidates"], chosen: Bool[ndarray, "n candidates"]
) -> Float[ndarray, "*curves n n"]:
    """Area i, j: how well the scores of network i predict the candidates chosen by network j. Ties count half.

    The diagonal is the score's performance; off-diagonal entries are its null, since other networks' choices share the
    common preference for some candidates and nothing specific to this network. NaN for a network that chose none or
    all.
    Source: Mann and Whitney (1947); Hanley and McNeil (1982) for the area.
    """
    rank = stats.rankdata(scores, axis=-1)
    m = chosen.sum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (rank @ chosen.T.astype(np.float64) - m * (m + 1) / 2) / (m * (chosen.shape[1] - m))


def standardised(scores: Float[ndarray, "*curves candidates"]) -> Float[ndarray, "*curves candidates"]:
    """Standardised over the candidates (zero mean, unit standard deviation); 0 where all are equal."""
    centred = scores - scores.mean(-1, keepdims=True)
    spread = centred.std(-1, keepdims=True)
    return np.divide(centred, spread, out=np.zeros_like(centred), where=spread > 0)


def logistic_weights(
    features: Float[ndarray, "rows features"], chosen: Bool[ndarray, "rows"], *, ridge: float = 1.0
) -> Float[ndarray, "features"]:
    """Weights of the log-odds of being chosen, by maximum likelihood with a ridge; the constant is not returned.

    The constant shifts all candidates equally, so it does not change ranks. The penalty is ridge / 2 |weights|^2 on the
    summed loss. Source: Hastie, Tibshirani and Friedman, "The Elements of Statistical Learning", section 4.4.
    """
    x = np.hstack([features, np.ones((len(features), 1))])
    shrunk = np.append(np.full(features.shape[1], ridge), 0.0)

    def loss(w: ndarray) -> tuple[float, ndarray]:
        z = x @ w
        value = np.logaddexp(0, z).sum() - z[chosen].sum() + (shrunk * w * w).sum() / 2
        return float(value), x.T @ (special.expit(z) - chosen) + shrunk * w

    return optimize.minimize(loss, np.zeros(x.shape[1]), jac=True, method="L-BFGS-B").x[:-1]
