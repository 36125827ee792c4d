"""The posterior samplers by name: POSTERIOR_SAMPLERS[name](**numbers) -> PosteriorSampler."""

from genjax.inverse.adaptation import deep_prior
from genjax.inverse.annealed import daps
from genjax.inverse.blind import gdp
from genjax.inverse.fusion import ddfm
from genjax.inverse.gradient import dps, mcg, pigdm, tmpd
from genjax.inverse.joint import joint
from genjax.inverse.latent import latent_dps, p2l, resample
from genjax.inverse.plug_and_play import diffpir, red_diff
from genjax.inverse.projection import projection, repaint, sdedit
from genjax.inverse.smc import smc
from genjax.inverse.svd import ddnm, ddnm_plus, ddrm
from genjax.inverse.volume import diffusion_mbir

POSTERIOR_SAMPLERS = {
    "sdedit": sdedit,
    "projection": projection,
    "repaint": repaint,
    "mcg": mcg,
    "dps": dps,
    "pigdm": pigdm,
    "tmpd": tmpd,
    "ddrm": ddrm,
    "ddnm": ddnm,
    "ddnm_plus": ddnm_plus,
    "diffpir": diffpir,
    "red_diff": red_diff,
    "daps": daps,
    "smc": smc,
    "gdp": gdp,
    "joint": joint,
    "diffusion_mbir": diffusion_mbir,
    "latent_dps": latent_dps,
    "resample": resample,
    "p2l": p2l,
    "deep_prior": deep_prior,
    "ddfm": ddfm,
}
