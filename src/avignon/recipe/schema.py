"""The recipe's schema: one TOML file holds a run. What passes here is trusted everywhere else.

Every field is documented directly beneath itself. Unknown keys are errors that suggest the nearest key.
"""

import functools
import operator
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tomli_w
from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from avignon.core.buckets import buckets
from avignon.core.errors import RecipeError
from avignon.core.naming import slug
from avignon.core.settings import ABSENT, Section, UserPath, placed
from avignon.models.registry import FAMILIES, SAMPLERS, is_checkpoint, local_folder
from avignon.museums.registry import MUSEUMS
from avignon.museums.settings import MuseumSettings, NgaMuseum

SCHEMA = 2
"""Of hashes over a recipe's values: to be raised where a default or the meaning of a value changes. A new field needs
no other number, because hashes cover only what differs from the defaults; avignon 0.1.0 (schema 1) hashed all."""

LEAST_SIDE = 32
"""Pixels of a picture's side."""

if TYPE_CHECKING:
    Museum = MuseumSettings  # What the classes share.
    Sampler = str
else:
    _classes = (row.settings_class() for row in MUSEUMS)
    Museum = Annotated[functools.reduce(operator.or_, _classes), Field(discriminator="kind")]
    Sampler = Literal[SAMPLERS]


def _located(model: str, info: ValidationInfo) -> str:
    """A model that is a directory or a file made absolute; others are names on a hub."""
    return placed(model, info) if model.startswith((".", "/", "~")) or is_checkpoint(model) else model


def adapter_place(value: str, folder: Path) -> str:
    """Which adapter is meant: a path made absolute, from `folder`; an imported name or a repository as it is.

    A path is what begins or ends as one, or is there.
    """
    path = (folder / Path(value).expanduser()).resolve()
    looks_like_one = value.startswith((".", "/", "~")) or re.fullmatch(r"([^/]+/)?[^/]+\.safetensors", value)
    is_other = re.fullmatch(r"[\w.-]+|[\w.-]+/[\w.-]+(/[\w./ -]+\.safetensors)?(@[\w./-]+)?", value)
    return str(path) if value and (looks_like_one or path.exists() or not is_other) else value


def _adapter(value: str, info: ValidationInfo) -> str:
    return adapter_place(value, info.context) if info.context else value


class Artist(Section):
    """One artist of the dialogue."""

    schema_1 = {"originals": ABSENT}

    name: str = Field(min_length=1)
    """As shown on the page; also names the adapter."""
    find: tuple[Annotated[int, Field(ge=0, lt=2**63)] | str, ...] = Field(default=(), strict=False)
    """Names or museum ids (National Gallery of Art: constituentid) to look up; the name itself by default."""
    works: int = Field(ge=1, le=10_000)
    """How many works to train on. Fewer is an error, never a silent change."""
    classification: tuple[str, ...] = Field(default=(), strict=False)
    """Only works that the museum classes so, e.g. `["Painting"]`; empty takes all."""
    trigger: str = Field(min_length=1)
    """The phrase in every caption, by which prompts call the style."""
    rights: Literal["open-only", "acknowledge-restricted"] = "open-only"
    """`open-only`: works whose images are open, be it on a condition such as attribution. `acknowledge-restricted`:
    also other ones; you state that you may use them, and everything made from them says so, with their conditions."""
    decisions: UserPath = ""
    """A CSV file with columns object_id, decision (`keep`, `drop`, or empty: the measures decide) and reason: a
    curator's decisions go before measures. `avignon works ARTIST --decisions FILE` writes one to edit."""
    originals: UserPath = ""
    """A folder of images added by hand, each named by its object id, such as `25800.jpg`: they are taken in place of
    fetching, for works that the museum lists and `rights` admits."""
    museum: Museum | None = None
    """Where this artist's works are, if not in the recipe's `museum`."""

    @property
    def slug(self) -> str:
        """The artist's folder and adapter name."""
        return slug(self.name)


class Base(Section):
    """The model that stays frozen."""

    schema_1 = dict.fromkeys(("vae", "vae_mirrors", "vae_revision", "config", "prediction_type", "quantize"), ABSENT)

    model: Annotated[str, Field(min_length=1), AfterValidator(_located)]
    """A short name (`sd-1.5`, `sd-2.1-base`, `sd-2.1`, `sdxl`, `z-image`, `flux2-klein-4b`; `avignon doctor` lists all,
    with homes and licences), a Hugging Face repository, a local directory in diffusers' format, a single `.safetensors`
    checkpoint of a Stable Diffusion 1.x, 2.x or XL, or `embedded` (the package's miniature)."""
    mirrors: tuple[str, ...] = Field(default=(), strict=False)
    """Repositories to try, in order, where `model`, or each home of a short name, is gone."""
    revision: str = "main"
    """Branch, tag or commit; a commit makes a run reproducible."""
    variant: Literal["", "fp16"] = ""
    """Which weight files to load, where a repository offers several."""
    vae: Annotated[str, AfterValidator(_located)] = ""
    """Another VAE in place of the base's own, such as `madebyollin/sdxl-vae-fp16-fix`: a repository or a local
    directory that holds it at its root or in `vae/`, or a single `.safetensors` file, which is taken to have the scale
    of the base's own. Its latents must be the base's: of the same class, channels and scaling factor."""
    vae_mirrors: tuple[str, ...] = Field(default=(), strict=False)
    """Repositories to try, in order, where `vae` is gone."""
    vae_revision: str = "main"
    """Branch, tag or commit of `vae`; a commit makes a run reproducible."""
    config: Annotated[str, AfterValidator(_located)] = ""
    """Whose configuration and tokenizers a single file takes: a short name, a repository, or a local directory in
    diffusers' format; by default the short name of its architecture."""
    prediction_type: Literal["", "epsilon", "v_prediction"] = ""
    """What the base was trained to predict, where its files do not say, as a single file of Stable Diffusion 2.x, or
    say wrongly."""
    quantize: Literal["", "int8", "nf4"] = ""
    """Keep the denoiser's weights in 8 bits, or in 4 (QLoRA's NF4, Dettmers et al., arXiv:2305.14314), to train and to
    paint: for small cards. Adapters stay in full, beside them; Z-Image's text encoder is kept in 8 bits with either."""
    resolution: int = Field(ge=32, le=2048, multiple_of=8)
    """Pixels of a square image, on each side: what the base was trained at (SD 2.1-base: 512; SDXL and transformers:
    1024)."""

    @model_validator(mode="after")
    def _belongs_together(self) -> "Base":
        single = is_checkpoint(self.model)
        if self.config and not single:
            raise ValueError("config belongs to a single file of weights, and model is none")
        if self.variant and single:
            raise ValueError("variant chooses among a repository's files, and model is a single file")
        if not self.vae and (self.vae_mirrors or self.vae_revision != "main"):
            raise ValueError("vae_mirrors and vae_revision belong to vae, which is not set")
        return self

    @property
    def folder(self) -> Path | None:
        """The base's directory or file; None where the base is on a hub."""
        return local_folder(self.model)

    @property
    def further_places(self) -> list[Path]:
        """Directories and files beside it that a base is read from: those that `config` and `vae` name."""
        return [place for place in map(local_folder, (self.config, self.vae)) if place]


class Collect(Section):
    """How works are fetched."""

    schema_1 = {"pause": 0.2}

    reserve: int = Field(default=8, ge=0)
    """Images fetched beyond the number wanted, so that curation can reject some."""
    max_edge: int = Field(default=2048, ge=64, le=4096)
    """Longest side asked for, in pixels; never more than the true size."""
    pause: float | None = Field(default=None, ge=0, le=60)
    """Least seconds between two requests to one host, whatever the museum's own `pause` is; by default that one."""
    timeout: float = Field(default=30.0, gt=0, le=600)
    """Seconds to wait for a connection or for the next bytes."""
    max_megabytes: int = Field(default=200, ge=1, le=4096)
    """Largest image accepted."""


class Curate(Section):
    """What a training image must be."""

    min_edge: int = Field(default=0, ge=0)
    """Least pixels on the short side; 0 takes the base's resolution, with `prepare.shape = "buckets"` what a work's own
    shape needs."""
    duplicate_likeness: float = Field(default=0.7, ge=0)
    """Two pictures whose slopes correlate at least so well are one, or two views or states of one; above 1: none."""
    min_sharpness: float = Field(default=8.0, ge=0)
    """Least standard deviation of the Laplacian, in grey levels at 512 pixels on the long side; below it is blurred."""
    min_detail: float = Field(default=0.5, ge=0)
    """Least detail in an octave against the next, of the two finest; below it the picture was scaled up."""
    max_noise: float = Field(default=5.5, ge=0)
    """Most noise in the flattest parts, as a standard deviation in grey levels."""
    max_blocking: float = Field(default=1.55, ge=0)
    """Most steps at the borders of JPEG's blocks against steps elsewhere; 1 is none."""
    min_colour: float = Field(default=1.5, ge=0)
    """Least colour that brightness does not explain, asked of paintings alone: below it is a grey or toned copy."""
    max_margin: float = Field(default=0.03, ge=0, le=1)
    """Widest flat band along an edge, as a share of the side: a mount, a wall, a scanner's bed."""
    max_frame: float = Field(default=0.55, ge=0, le=1)
    """Straightest line along the weakest of the four edges: the inner rim of a frame, however ornate."""
    max_target: float = Field(default=0.7, ge=0, le=1)
    """Most hues of six in flat patches in a row along an edge: a colour target."""
    max_ruler: float = Field(default=0.85, ge=0, le=1)
    """Most regularity of marks along an edge: a ruler. The carving of a frame comes to three quarters."""


class Prepare(Section):
    """How originals become training images."""

    schema_1 = {"shape": ABSENT}

    captions: int = Field(default=4, ge=1, le=8)
    """Captions per image; one shared caption invites copying."""
    crops: int = Field(default=1, ge=1, le=4)
    """Square crops per work, evenly placed along its long side."""
    shape: Literal["square", "buckets"] = "square"
    """`square`: of a seascape the ends are lost. `buckets`: each work in the nearest of some shapes from 1 : 4 to 4 : 1
    of the same area, which cuts off little of it; the ledger says which and how much. A step of training then has
    images of one shape."""

    @model_validator(mode="after")
    def _one_view_of_a_bucket(self) -> "Prepare":
        if self.shape == "buckets" and self.crops > 1:
            raise ValueError(
                f"crops = {self.crops} are of shape = 'square'; a bucket shows the whole work: set crops = 1"
            )
        return self


class Ranks(Section):
    """LoRA rank per kind of the denoiser's layers; 0 leaves the kind frozen. A base without a kind ignores its rank."""

    attention: int = Field(default=16, ge=0, le=256)
    """to_q, to_k, to_v and to_out of every attention; of FLUX.2 klein those of the text too, and both layers of every
    block of one stream."""
    projection: int = Field(default=16, ge=0, le=256)
    """proj_in and proj_out of every transformer block; of Z-Image and FLUX.2 klein the layers of every feed-forward
    network."""
    convolution: int = Field(default=2, ge=0, le=256)
    """conv1 and conv2 of every residual block; Z-Image and FLUX.2 klein have none."""
    blocks: dict[str, Annotated[int, Field(ge=0, le=256)]] = {}
    """Rank within single blocks, by the beginning of their names, as `mid_block`, `down_blocks.0`, `layers.7`; 0:
    frozen."""

    @model_validator(mode="after")
    def _some_layer(self) -> "Ranks":
        if not (self.attention or self.projection or self.convolution):
            raise ValueError("all ranks are 0: nothing would be trained")
        return self


class Train(Section):
    """How adapters learn."""

    schema_1 = {"offload": ABSENT, "memory": ABSENT}
    formerly = {"lr_schedule": "schedule", "eval_every": "watch_every", "validation_works": "held_out"}

    mode: Literal["separate", "joint"] = "separate"
    """`separate`: one adapter per artist, which can be mixed. `joint`: one for all, as the original project had."""
    together: bool = True
    """Train all adapters in one pass, which is faster and takes the memory of all their batches; else one by one."""
    steps: int = Field(default=1200, ge=1)
    """Optimizer steps per adapter."""
    batch: int = Field(default=4, ge=1, le=256)
    """Images per optimizer step."""
    micro_batch: int = Field(default=0, ge=0, le=256)
    """Images of each adapter per pass, for small cards: gradients add up to `batch`, which it must divide; 0: all."""
    optimizer: Literal["adamw", "adamw-8bit", "prodigy"] = "adamw"
    """`adamw-8bit` keeps its state in a quarter of the memory; `prodigy` finds the rate itself (set learning_rate = 1).
    Both need `pip install avignon[optimizers]`."""
    learning_rate: float = Field(default=1e-4, gt=0, le=1)
    lr_schedule: Literal["constant", "cosine", "linear"] = "cosine"
    """How the learning rate falls after the warm-up."""
    warmup: int = Field(default=0, ge=0)
    """Steps over which the learning rate rises from 0."""
    weight_decay: float = Field(default=0.01, ge=0, le=1)
    """Pull towards no change at all; a DoRA's lengths, which it would pull to 0, are left alone."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    caption_dropout: float = Field(default=0.05, ge=0, lt=1)
    """Share of samples trained with the empty prompt, which keeps classifier-free guidance at work."""
    min_snr_gamma: float = Field(default=0.0, ge=0, le=100)
    """Weigh timesteps by min(SNR, γ), 5 in the paper (Hang et al., arXiv:2303.09556); 0 weighs all alike."""
    noise_offset: float = Field(default=0.0, ge=0, le=1)
    """Noise shared by all pixels of a channel, which lets very dark and very light pictures be learned."""
    ema: float = Field(default=0.0, ge=0, lt=1)
    """Decay of an exponential moving average of the weights, which is then what is saved; 0 saves the last weights."""
    validation_works: int = Field(default=0, ge=0)
    """Works of each adapter that are not learned from, to measure the loss on."""
    eval_every: int = Field(default=0, ge=0)
    """Steps between measurements on the validation works; 0 measures at the end only."""
    prior_images: int = Field(default=0, ge=0, le=10_000)
    """Pictures that the base generates from the captions without the trigger; every step has as many of them as of
    works, so that it does not forget the rest of the world (prior preservation, Ruiz et al., arXiv:2208.12242)."""
    prior_weight: float = Field(default=1.0, gt=0, le=100)
    """Weight of their loss against that of the works."""
    sample_every: int = Field(default=0, ge=0)
    """Steps between samples: the first scenes of the recipe, generated with this adapter alone; 0 generates none."""
    keep: Literal["last", "best"] = "last"
    """Which weights are saved: the last, or those whose samples have the most style gained minus copies made."""
    patience: int = Field(default=0, ge=0)
    """Samples without a better one after which training stops early; 0 never stops."""
    flip: bool = False
    """Mirror half of the samples; only where left and right do not matter."""
    ranks: Ranks = Ranks()
    alpha: float = Field(default=0.0, ge=0)
    """LoRA alpha for all layers; 0 sets it to each layer's rank, a scale of 1."""
    dora: bool = False
    """Learn the length of every output channel's weights as well, apart from their direction (DoRA, Liu et al.,
    arXiv:2402.09353): nearer to training all weights at small ranks, and slower. Its factors are computed in fp32."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: about half the memory, a third more time."""
    offload: bool = False
    """Keep the denoiser's weights in RAM: each layer's go to the card when it is computed, in both passes. It takes the
    memory of the largest layer in place of all, and the time to copy them; only a CUDA device has use for it."""
    attention: Literal["auto", "sdpa", "xformers", "plain"] = "auto"
    """`sdpa` is PyTorch's own, `plain` two matrix products. `auto` takes xFormers where it works, on a CUDA
    device and not for Z-Image, plain to train on a CPU where pictures are small, else PyTorch's own."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Compile the denoiser's repeated blocks (torch.compile); `auto` does on a CUDA device where that works, except
    for a DoRA, and for images in buckets, of which each shape is compiled by itself."""
    memory: Literal["", "auto", "8GB", "12GB", "24GB"] = ""
    """Take the fastest settings whose estimated memory is there: of this machine's device (`auto`), or of a card of so
    many GiB. It chooses `together`, `gradient_checkpointing`, `micro_batch`, then `base.quantize = "int8"`, then
    `offload`, says which, and leaves alone what is not at its default. Empty chooses nothing."""
    deterministic: bool = False
    """Only algorithms that give the same bits on every run; a GPU is slower with them, a CPU gives them anyway."""
    checkpoint_every: int = Field(default=100, ge=1)
    """Steps between checkpoints, at which an interrupted run goes on."""
    keep_checkpoints: int = Field(default=2, ge=1, le=1000)
    """How many of the newest are kept while an adapter trains."""

    @model_validator(mode="after")
    def _fits_together(self) -> "Train":
        images = self.batch * (2 if self.prior_images else 1)
        if self.micro_batch and images % self.micro_batch:
            both = ", and as many of the base's own pictures" if self.prior_images else ""
            raise ValueError(f"micro_batch {self.micro_batch} does not divide batch {self.batch}{both}")
        if self.offload and self.compile == "on":
            raise ValueError("offload copies weights between layers, which compiled blocks leave no room for: set one")
        if self.is_judged and not self.sample_every:
            raise ValueError("keep = 'best' and patience judge samples: set sample_every")
        return self

    @property
    def is_judged(self) -> bool:
        """Whether what is learned depends on samples."""
        return self.keep == "best" or self.patience > 0

    @property
    def is_open_ended(self) -> bool:
        """Whether no step depends on how many there will be, so that a finished training can go on."""
        return self.lr_schedule == "constant" and not self.is_judged


class Scene(Section):
    """One row of the series: the same prompt and seed at every stop."""

    schema_1 = {"width": ABSENT, "height": ABSENT}

    prompt: str
    """In plain words: what other programs take for weights or adapters, as `(boat:1.3)`, is read as letters."""
    seed: int = Field(default=-1, ge=-1, lt=2**63)
    """-1 derives one from the recipe's seed and the scene's place."""
    to_seed: int = Field(default=-1, ge=-1, lt=2**63)
    """A second seed: noise, and composition with it, goes from `seed`'s at the first stop to this one's at the last."""
    image: UserPath = ""
    """A picture to begin from instead of noise: a work, or a photograph of one's own; relative paths are relative to
    the recipe. Its middle is taken, in the scene's shape. That you may use it is your statement; every picture names
    the file."""
    image_strength: float = Field(default=0.6, gt=0, le=1)
    """Share of the denoising steps that are done on `image`: little keeps it, 1 leaves nothing but a trace of it."""
    width: int = Field(default=0, ge=0, le=2048)
    """Pixels of the scene's pictures; 0 is the base's resolution. Both sides are multiples of what the base needs (64
    for Stable Diffusion and SDXL, 16 for Z-Image). Best is about the resolution's area, as 1344 × 768 for 1024."""
    height: int = Field(default=0, ge=0, le=2048)

    @field_validator("width", "height")
    @classmethod
    def _some_pixels(cls, side: int) -> int:
        if 0 < side < LEAST_SIDE:
            raise ValueError(f"{side} pixels are too few; at least {LEAST_SIDE} are needed, or 0 for the resolution")
        return side


class Generate(Section):
    """How the series is made."""

    schema_1 = {"denoiser_only": ABSENT}
    formerly = {
        "path_adapters": "voices",
        "equalize_adapters": "equal_voices",
        "weight_schedule": "during",
        "block_weights": "blocks",
        "num_inference_steps": "steps",
        "guidance_scale": "guidance",
    }

    scenes: tuple[Scene, ...] = Field(min_length=1, max_length=1000, strict=False)
    stops: int = Field(default=7, ge=2, le=1000)
    """Pictures from the first adapter to the last, both included."""
    path_adapters: tuple[str, ...] = Field(default=(), strict=False)
    """The adapters that the path leads through, in order; by default those that the recipe trains."""
    path: Literal["linear", "arc", "relay"] = "arc"
    """How weights change: `linear` (1-t, t), `arc` (cos, sin), which keeps both styles strong in between, or `relay`:
    the later adapter begins the denoising and so composes, the earlier one finishes, and the hand-over moves."""
    spacing: Literal["uniform", "even"] = "uniform"
    """Where the stops are: at equal distances in weight, or in measured style, for which probes are generated first."""
    fade: float = Field(default=0.25, gt=0, le=1)
    """Share of the denoising steps over which a relay hands over."""
    equalize_adapters: bool = True
    """Bring adapters to equal effect where they are mixed, so that none wins the middle; the ends are as trained."""
    weights: tuple[dict[str, float], ...] = Field(default=(), strict=False)
    """Stops by hand instead of a path: one table of adapter = weight each; negative leads away from a style."""
    weight_schedule: dict[str, Annotated[tuple[float, ...], Field(min_length=1, strict=False)]] = {}
    """Factors on an adapter's weight over the denoising steps, joined by lines: `[1, 0]` composes, `[0, 1]` ends."""
    block_weights: dict[str, dict[str, float]] = {}
    """Factors on an adapter's weight in parts of the denoiser: `down`, `mid`, `up`, or a block such as `"up_blocks.1"`;
    of Z-Image and FLUX.2 klein `early`, `middle`, `late` (thirds of their blocks), or such as `"layers.7"` and
    `"single_transformer_blocks.7"`."""
    adapters: dict[str, Annotated[str, AfterValidator(_adapter)]] = {}
    """Further adapters to mix in by `path_adapters` or `weights`, of any program that docs/ADAPTERS.md names: name = a
    file or its folder, a name that `avignon import` gave, or a repository as `owner/name`, `owner/name@revision` or
    `owner/name/file.safetensors`. A name with a dot or a blank needs quotation marks, as all such keys of TOML:
    `"style_v1.5" = "loras/style"`."""
    denoiser_only: tuple[str, ...] = Field(default=(), strict=False)
    """Adapters of which only the denoiser's part is used: what they change in the text encoder is left out."""
    strength: float = Field(default=1.0, gt=0, le=4)
    """Factor on every weight of the path."""
    strengths: dict[str, Annotated[float, Field(gt=0, le=4)]] = {}
    """Further factors, on single adapters' weights: where one adapter is weaker than another after training."""
    num_inference_steps: int = Field(default=30, ge=1, le=1000)
    """Denoising steps."""
    guidance_scale: float = Field(default=7.5, ge=1, le=50)
    """Classifier-free guidance scale (Ho & Salimans, arXiv:2207.12598); 1 is none. It means the same for every base;
    diffusers' pipeline of Z-Image counts from 0, so its 4 is 5 here, and its 0, for Turbo, is 1.
    A distilled FLUX.2 klein has its guidance within: 1, as any other has no effect."""
    negative_prompt: str = ""
    scheduler: Sampler = "ddim"
    """The sampler: of Z-Image and FLUX.2 klein `euler` alone. Of the base's scheduler file it takes the noise schedule
    alone, whichever sampler saved that."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """`auto` is fp16 on a CUDA device (bf16 of Z-Image and FLUX.2 klein), bf16 on a CPU that multiplies it natively,
    else fp32. Pictures are those of any other program in fp32 only; they are decoded in it always."""
    extra_seeds: int = Field(default=0, ge=0, le=100)
    """Further seeds for each scene, beside the series: by them the report tells the scene's part from the seed's."""
    batch: int = Field(default=4, ge=1, le=256)
    """Pictures denoised at once, whatever their weights; fewer where the memory does not hold them."""

    @property
    def sides(self) -> dict[str, int]:
        """Widths and heights that scenes state, by their fields."""
        return {
            f"generate.scenes.{number}.{side}": getattr(scene, side)
            for number, scene in enumerate(self.scenes)
            for side in ("width", "height")
            if getattr(scene, side)
        }

    def strength_of(self, name: str) -> float:
        """The factor on an adapter's weight along the path."""
        return self.strength * self.strengths.get(name, 1.0)

    @model_validator(mode="after")
    def _some_step(self) -> "Generate":
        for number, scene in enumerate(self.scenes):
            if scene.image and int(self.num_inference_steps * scene.image_strength) < 1:
                raise ValueError(
                    f"scenes.{number}.image_strength: {scene.image_strength:g} of {self.num_inference_steps} steps is "
                    f"no step at all; at least {1 / self.num_inference_steps:.2g} is needed"
                )
        return self


class Evaluate(Section):
    """What the series is measured with beside the measures that are always there."""

    encoder: Annotated[str, AfterValidator(_located)] = ""
    """A learned encoder whose distances the report shows as one more aspect: a Hugging Face repository or a local
    directory of a CLIP or a DINOv2 in transformers' format. Empty: none, and nothing is downloaded."""
    encoder_mirrors: tuple[str, ...] = Field(default=(), strict=False)
    """Repositories to try, in order, where `encoder` is gone."""
    encoder_revision: str = "main"
    """Branch, tag or commit; a commit makes a report reproducible."""


class Exhibit(Section):
    """The words on the page, and what is made beside it."""

    title: str = "A dialogue of eras"
    introduction: str = ""
    films: tuple[Literal["grid", "strip", "webp", "gif", "mp4"], ...] = Field(default=(), strict=False)
    """The series as files for others, in `exhibition/films`: `grid` (all scenes, PNG), and of each scene `strip` (PNG),
    `webp`, `gif` and `mp4`, which go there and back. `mp4` needs `pip install avignon[video]`."""
    film_pace: float = Field(default=0.5, ge=0.04, le=60)
    """Seconds for which a film shows each stop."""


class Recipe(Section):
    """A dialogue between two or more artists, from the museum to the page."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    """Names the run's folder; the file's name by default."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Everything random in the run follows from it."""
    museum: Museum = NgaMuseum()
    artists: tuple[Artist, ...] = Field(min_length=2, strict=False)
    base: Base
    collect: Collect = Collect()
    curate: Curate = Curate()
    prepare: Prepare = Prepare()
    train: Train = Train()
    generate: Generate
    evaluate: Evaluate = Evaluate()
    exhibit: Exhibit = Exhibit()

    @field_validator("artists")
    @classmethod
    def _names_differ(cls, artists: tuple[Artist, ...]) -> tuple[Artist, ...]:
        seen: dict[str, str] = {}
        for artist in artists:
            if not artist.slug:
                raise ValueError(f"{artist.name!r} has no letter or digit to name a folder with")
            if artist.slug in seen:
                raise ValueError(f"two artists have one name: {seen[artist.slug]!r} and {artist.name!r}")
            seen[artist.slug] = artist.name
        return artists

    @model_validator(mode="after")
    def _weights_name_adapters(self) -> "Recipe":
        for name in self.generate.adapters:
            if not name.strip() or not name.isprintable():
                raise ValueError(f"generate.adapters: {name!r} is not a name; it needs letters or digits, in one line")
            if name in self.adapter_names:
                raise ValueError(f"generate.adapters: {name!r} is the name of an adapter that this recipe trains")
        settings, known = self.generate, {*self.adapter_names, *self.generate.adapters}
        named = {
            "weights": [name for stop in settings.weights for name in stop],
            "path_adapters": settings.path_adapters,
            "weight_schedule": settings.weight_schedule,
            "block_weights": settings.block_weights,
            "strengths": settings.strengths,
            "denoiser_only": settings.denoiser_only,
        }
        for field, names in named.items():
            for name in names:
                if name not in known:
                    raise ValueError(f"generate.{field}: no adapter {name!r}; there are {', '.join(sorted(known))}")
        if len(set(settings.path_adapters)) < len(settings.path_adapters):
            raise ValueError("generate.path_adapters: an adapter is named twice")
        return self

    @model_validator(mode="after")
    def _blocks_exist(self) -> "Recipe":
        for name, factors in self.generate.block_weights.items():
            for block in factors:
                if not any(re.fullmatch(family.blocks, block) for family in FAMILIES.values()):
                    raise ValueError(
                        f"generate.block_weights.{name}: {block!r} is not a part of any base; allowed are "
                        + "; ".join(f"{family.parts} ({family.label})" for family in FAMILIES.values())
                    )
        return self

    @property
    def path_adapters(self) -> tuple[str, ...]:
        """The adapters that the path of the series leads through."""
        return self.generate.path_adapters or self.adapter_names

    @property
    def adapter_names(self) -> tuple[str, ...]:
        """The adapters that the recipe trains, in order."""
        return ("joint",) if self.train.mode == "joint" else tuple(artist.slug for artist in self.artists)

    @property
    def painted_in_training(self) -> dict[str, Any]:
        """What of `generate` a training depends on: all where samples judge it, a part where the base paints first."""
        if self.train.is_judged:
            return self.generate.chosen(exclude={"extra_seeds"})
        if self.train.prior_images:
            return self.generate.chosen("guidance_scale", "num_inference_steps", "scheduler", "negative_prompt")
        return {}

    def scene_seed(self, number: int) -> int:
        """The seed of a scene (from 1): its own, or one that follows from the recipe's."""
        own = self.generate.scenes[number - 1].seed
        return own if own >= 0 else self.seed + number

    @property
    def least_edge(self) -> int:
        """Least pixels that a work needs on its short side."""
        return self.curate.min_edge or self.base.resolution

    def size_of(self, scene: Scene) -> tuple[int, int]:
        """Width and height of a scene's pictures."""
        return scene.width or self.base.resolution, scene.height or self.base.resolution

    @property
    def buckets(self) -> tuple[tuple[int, int], ...]:
        """The shapes of training images; none where all are the base's square.

        Raises:
            RecipeError: there is none but the square.
        """
        if self.prepare.shape == "square":
            return ()
        from avignon.models import loading  # Here, because the hub's client takes long to load.

        resolution, multiple = self.base.resolution, loading.multiple_of(self.base)
        if len(found := buckets(resolution, multiple)) < 2:
            raise RecipeError(
                f"prepare.shape: 'buckets' have sides of multiples of {multiple}, as the base needs, and about the "
                f"area of {resolution} × {resolution}: there is no such shape beside the square; use 'square', or a "
                "larger base.resolution"
            )
        return found

    def museum_of(self, artist: Artist) -> MuseumSettings:
        """Where to look for this artist's works."""
        return artist.museum or self.museum

    def to_toml(self) -> str:
        """The recipe with all defaults filled in."""
        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))
