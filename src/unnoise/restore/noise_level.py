"""How much noise a picture holds, when nobody says."""

from torch import Tensor


def estimate_sigma(y: Tensor) -> float:
    """Standard deviation of the white Gaussian noise in one picture y (C, H, W), in the units of y.

    From the median of its finest wavelet coefficients (Donoho & Johnstone 1994), by scikit-image, averaged over channels.
    It reads low on strong noise that was clipped, and on very small pictures what is estimated is a guess.
    """
    from skimage.restoration import estimate_sigma as by_wavelets

    return float(by_wavelets(y.double().cpu().numpy(), average_sigmas=True, channel_axis=0))
