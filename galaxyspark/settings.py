"""Every setting of every job, with its unit, its range and its default.

A job's settings are a few of its own (``run``, ``images``, ``seed``, ...) and sections that belong to a stage. A YAML
file has that shape: shared settings at the top, one section a stage. On the command line every setting is a flag
without its section's name (``train: {epochs: 3}`` is ``--epochs 3``), so a flag means the same in one job and in the
whole pipeline. ``galaxyspark.command_line`` turns YAML and flags into these classes.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Protocol

from pydantic import ConfigDict, Field
from tyro.conf import OmitArgPrefixes, Positional

from galaxyspark.storage import url_in

STAGES = ("simulate", "augment", "train", "extract", "classify", "predict", "dream", "report")
"""The stages in the order the pipeline runs them."""

_STRICT = ConfigDict(extra="forbid")
Plane = Annotated[int, Field(ge=0)]
Port = Annotated[int, Field(ge=1, le=65_535)]
Positive = Annotated[float, Field(gt=0)]
RuntimeName = Literal["auto", "torch", "openvino"]
Precision = Literal["bfloat16", "float32"]
SplitName = Literal["train", "validation", "test"]
View = Annotated[int, Field(ge=0, le=15)]
RivalName = Literal["logistic_regression", "nearest_neighbours", "random_forest", "gradient_boosting"]


@dataclass(frozen=True, kw_only=True)
class SimulateSettings:
    """Simulated galaxies."""

    __pydantic_config__ = _STRICT

    num_galaxies: Annotated[int, Field(ge=1, le=900_000)] = 1_000
    """Galaxies with votes, written to RUN/simulated/images and RUN/simulated/labels.csv."""
    num_unlabelled: Annotated[int, Field(ge=0, le=900_000)] = 100
    """Further galaxies without votes, written to RUN/simulated/unlabelled, to classify afterwards."""


@dataclass(frozen=True, kw_only=True)
class AugmentSettings:
    """From images to views."""

    __pydantic_config__ = _STRICT

    view_size_px: Annotated[int, Field(ge=32, le=512)] = 112
    """Side of a stored view in pixels. 224 is GoogLeNet's own; 112 has a quarter of its pixels to work on."""
    field_of_view: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of the image's side that a view shows at zoom 1, around the centre."""
    colour_strength: Annotated[float, Field(ge=0, le=2)] = 0.1
    """Standard deviation of the colour perturbation, in units of the training images' own along each RGB axis."""
    jpeg_quality: Annotated[int, Field(ge=50, le=100)] = 90
    """Quality of the stored JPEG views."""
    split_fractions: tuple[float, float, float] = (0.90, 0.05, 0.05)
    """Shares of galaxies in train, validation and test; they add up to 1."""
    split_seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Which galaxies those are: with another, training can be repeated on other splits of the same shares. Weights of
    one such run have seen the test galaxies of the others, which refuse them."""
    stratify: bool = False
    """Give each class of up to 10,000 galaxies the shares of --split-fractions to itself, so that one of three or more
    is in every split. Without it a galaxy's id alone decides, and galaxies added later move none into another split."""
    label_rule: Literal["argmax", "threshold", "clean"] = "argmax"
    """How votes become a class. argmax: the answer to question 1 with most votes. threshold: artifact from
    --artifact-threshold upward, else the answer with more votes of the other two. clean: argmax, but galaxies under
    --min-agreement are left out (and listed in the quarantine). Labels that are classes already stay as they are."""
    artifact_threshold: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Share of votes for star or artifact (Class1.3) that makes an artifact under --label-rule threshold."""
    min_agreement: Annotated[float, Field(gt=0, le=1)] = 0.8
    """Least share of votes for the commonest answer under --label-rule clean; 0.8 is Galaxy Zoo's own clean sample."""
    vote_tolerance: Annotated[float, Field(ge=0, le=1)] = 0.01
    """How far the answers to a question may be from adding up to the share of volunteers who were asked it."""
    allow_unmatched: bool = False
    """Leave out images without a label and labels without an image, instead of refusing the input."""
    max_quarantined: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the images in quarantine above which the stage fails and publishes nothing."""
    max_file_mb: Annotated[float, Field(gt=0, le=1_000)] = 32.0
    """Larger image files are quarantined unread, in MB."""
    max_megapixels: Annotated[float, Field(gt=0, le=178)] = 64.0
    """Larger images are quarantined by what their header says, before they are decoded, in millions of pixels."""
    fits_stretch: Literal["lupton", "linear"] = "lupton"
    """How flux in FITS images becomes brightness: lupton, the asinh of Lupton et al. 2004, or linear."""
    fits_scale: Annotated[float, Field(gt=0)] | None = None
    """Flux above the sky up to which lupton is about linear, or that is white in linear, in the images' own unit. None:
    from each image, ten times its sky's noise, or its 99.5th percentile."""
    fits_softening: Annotated[float, Field(gt=0)] = 8.0
    """Lupton's Q: larger shows more of what is far brighter than the scale."""
    fits_planes: tuple[Plane, Plane, Plane] | None = None
    """Planes of FITS cubes, from 0, for red, green and blue. None: the last, middle and first of three."""
    row_group_mb: Annotated[int, Field(ge=1, le=1_024)] = 32
    """Largest size of the Parquet row groups, the unit that petastorm reads and shuffles, in MB. Small datasets get
    smaller ones, so that there are enough for every rank."""
    preview: bool = False
    """Also draw RUN/preview.png, to look at before training: the 16 views of some training galaxies, and the colour
    perturbation by itself."""


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """Training, by default fine-tuning GoogLeNet."""

    __pydantic_config__ = _STRICT

    network: Literal["googlenet", "resnet18", "resnet50", "efficientnet_v2_s", "convnext_tiny"] = "googlenet"
    """Torchvision's name of the network."""
    objective: Literal["classes", "votes"] = "classes"
    """What is learned: classes (cross-entropy), or votes (all 37, consistent with the decision tree; the class is then
    question 1's answer with most of them)."""
    weights: str = "imagenet"
    """Where training starts: imagenet (torchvision's), none (from scratch), the directory of another run or a
    .safetensors file of the same network. It must not know the validation and test galaxies of this one."""
    epochs: Annotated[int, Field(ge=1)] = 30
    """Passes over all views of the training split."""
    max_minutes: Annotated[float, Field(ge=0)] = 0.0
    """Plan fewer steps where the epochs would take longer than this, in minutes without validation and checkpoints,
    of all sittings of a training that was stopped. 0: no limit."""
    batch_size: Annotated[int, Field(ge=2)] = 32
    """Most views in one step of one rank."""
    learning_rate: Annotated[float, Field(gt=0)] = 2.5e-4
    """Peak learning rate of AdamW for one rank; multiplied by the square root of the number of ranks."""
    pretrained_rate: Annotated[float, Field(gt=0, le=1)] = 0.3
    """Learning rate of layers that come with --weights, as a share of the new last layers'."""
    freeze: Annotated[int, Field(ge=0)] = 0
    """Epochs at the start in which only the last layers learn, and those that come with --weights stay as they are."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    """AdamW's weight decay."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the target that is spread evenly over the classes."""
    turn_views: bool = True
    """Turn every view by some quarter turns and mirror half of them, anew each time it is trained on."""
    class_balance: Annotated[float, Field(ge=0, le=1)] = 0.25
    """How much more a galaxy of a rare class counts: its class's frequency to the power of minus this. 0: all galaxies
    count the same; 1: all classes do."""
    max_gradient_norm: Annotated[float, Field(ge=0)] = 5.0
    """Gradients of a larger norm are scaled down to it; 0: they stay as they are."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Weights are judged and kept as their exponential moving average over the steps, with this share of the average
    before; 0: as they are."""
    best_by: Literal["accuracy", "macro_f1", "loss", "rmse"] = "accuracy"
    """Validation metric by which the epoch is chosen whose weights are published; rmse is of the votes."""
    patience: Annotated[int, Field(ge=0)] = 0
    """Stop when the metric has not got better for so many epochs; 0: never."""
    train_gpu_decoding: bool = False
    """Let GPUs decode the views of training too, by nvJPEG; for ranks with few cores."""
    resume: bool = True
    """Go on from the newest checkpoint of a training that was stopped; --no-resume starts over."""
    checkpoint_minutes: Annotated[float, Field(gt=0)] = 10.0
    """Minutes after which a checkpoint is written within an epoch; there is one at the end of every epoch too."""
    keep_checkpoints: Annotated[int, Field(ge=1)] = 2
    """Newest checkpoints to keep."""


@dataclass(frozen=True, kw_only=True)
class InferenceSettings:
    """What runs the trained network."""

    __pydantic_config__ = _STRICT

    runtime: RuntimeName = "auto"
    """What runs the network; auto: torch where there are GPUs, else OpenVINO."""
    precision: Precision = "bfloat16"
    """What the network computes with; where OpenVINO's processor has no bfloat16 it is float32."""
    gpu_decoding: bool = False
    """Let GPUs decode the views too, by nvJPEG, whose pixels are not quite those of the processor's decoder."""


@dataclass(frozen=True, kw_only=True)
class ExtractSettings:
    """Features and class probabilities of the views."""

    __pydantic_config__ = _STRICT

    splits: Annotated[tuple[SplitName, ...], Field(min_length=1)] = ("train", "validation", "test")
    """Splits to extract; classify needs all three."""
    train_views: Annotated[tuple[View, ...], Field(min_length=1)] = (0, 1, 2, 3)
    """Views of each training galaxy to extract, by their numbers."""
    other_views: Annotated[tuple[View, ...], Field(min_length=1)] = tuple(range(16))
    """Views of each validation and test galaxy to extract; classify needs all 16."""


@dataclass(frozen=True, kw_only=True)
class ClassifySettings:
    """The support vector machine on the features, and its rivals."""

    __pydantic_config__ = _STRICT

    fit_views: Literal["all", "view0"] = "all"
    """Views of each training galaxy to fit on: all that were extracted, or view 0 alone."""
    svm_kernels: Annotated[tuple[Literal["linear", "rbf"], ...], Field(min_length=1)] = ("linear", "rbf")
    """Kernels of the SVM to choose from, on the validation split; so are C and gamma."""
    svm_c: Annotated[tuple[Positive, ...], Field(min_length=1)] = (0.1, 1.0, 10.0)
    """Values of C to choose from; a linear SVM takes hundredths of them."""
    svm_gamma: Annotated[tuple[Positive, ...], Field(min_length=1)] = (0.3, 1.0)
    """Values of the RBF kernel's gamma to choose from, times one over the number of features."""
    svm_minutes: Annotated[float, Field(ge=0)] = 10.0
    """An RBF machine that would take longer than this gives way to Nystroem's approximation of it, which scales."""
    class_weight: Literal["balanced", "none"] = "balanced"
    """What a view counts. balanced: as much more as its class is rarer, in SVM and rivals; none: all the same."""
    rivals: tuple[RivalName, ...] = ("logistic_regression", "nearest_neighbours", "random_forest", "gradient_boosting")
    """Classifiers to fit on the same features, to compare the SVM with."""

    @property
    def weights(self) -> str | None:
        """``class_weight`` as scikit-learn takes it."""
        return None if self.class_weight == "none" else self.class_weight


@dataclass(frozen=True, kw_only=True)
class PredictSettings:
    """The catalogue of new images."""

    __pydantic_config__ = _STRICT

    predict_views: Annotated[int, Field(ge=1, le=16)] = 16
    """Views of each new image to average over, from view 0 on. One is 16 times faster; it has no agreement."""
    min_confidence: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Leave the column class empty where the network's confidence is less."""
    formats: tuple[Literal["csv", "fits", "votable"], ...] = ("csv", "fits")
    """Files to write the catalogue to, beside Parquet."""


@dataclass(frozen=True, kw_only=True)
class DreamSettings:
    """Pictures of what the network responds to."""

    __pydantic_config__ = _STRICT

    dream_size_px: Annotated[int, Field(ge=64, le=1024)] = 224
    """Side of a picture in pixels."""
    octaves: Annotated[int, Field(ge=1, le=10)] = 4
    """Sizes at which each picture is worked on, from coarse to fine: more of them make larger patterns."""
    octave_scale: Annotated[float, Field(gt=1, le=2)] = 1.4
    """How much larger each of these sizes is than the one before."""
    dream_steps: Annotated[int, Field(ge=1, le=1_000)] = 12
    """Steps of gradient ascent in each octave."""
    step_size: Annotated[float, Field(gt=0, le=50)] = 1.0
    """Mean change of a pixel in one step, in pixel values (0-255)."""
    jitter_px: Annotated[int, Field(ge=0, le=32)] = 8
    """The picture is shifted at random by up to so many pixels before each step, so that the network's grid does not
    show."""
    smoothing_px: Annotated[float, Field(ge=0, le=5)] = 1.0
    """Standard deviation of the Gaussian that smooths the gradient, in pixels: larger makes softer patterns."""


class JobSettings(Protocol):
    """What every job's settings have: they are a dataclass, with these."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def verbose(self) -> bool:
        """Whether to show everything."""

    @property
    def place(self) -> Path:
        """The run that the job is about, or what it writes."""


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What every stage has."""

    __pydantic_config__ = _STRICT

    run: Path
    """Run directory: every stage reads from it and publishes into it."""
    seed: Annotated[int, Field(ge=0)] = 1
    """Seed of everything random but the splits."""
    verbose: bool = False
    """Show the logs of Spark and Horovod, and Python's warnings."""

    @property
    def place(self) -> Path:
        """The run that the job is about."""
        return self.run


@dataclass(frozen=True, kw_only=True)
class SimulateJob(RunSettings):
    """Make simulated galaxies, laid out as the Galaxy Zoo challenge has them."""

    simulate: Annotated[SimulateSettings, OmitArgPrefixes] = field(default_factory=SimulateSettings)


@dataclass(frozen=True, kw_only=True)
class AugmentJob(RunSettings):
    """Decode every image and write 16 views of it as petastorm Parquet, split by galaxy."""

    images: str
    """Folder of JPEG, PNG or FITS images named <GalaxyID>.jpg, or of tar or Parquet files of them; any path Spark reads
    (local, hdfs://, s3a://)."""
    labels: str
    """CSV file: GalaxyID and the challenge's 37 vote fractions, or GalaxyID,label."""
    augment: Annotated[AugmentSettings, OmitArgPrefixes] = field(default_factory=AugmentSettings)


@dataclass(frozen=True, kw_only=True)
class TrainJob(RunSettings):
    """Train a network on the views with Horovod; start it with horovodrun, or with spark-submit on executors."""

    check: bool = False
    """Only check that the settings, the views and the weights are there; train nothing."""
    launcher: Literal["horovodrun", "spark"] = "horovodrun"
    """What starts the ranks: horovodrun has, or this job does in Spark's executors (start it with spark-submit)."""
    ranks: Annotated[int, Field(ge=1)] = 2
    """Ranks that --launcher spark starts; horovodrun has its own -np."""
    train: Annotated[TrainSettings, OmitArgPrefixes] = field(default_factory=TrainSettings)

    def with_absolute_paths(self) -> TrainJob:
        """The same job for ranks that start in another directory."""
        run = self.run if url_in(self.run) else self.run.absolute()
        weights = self.train.weights
        if weights not in ("none", "imagenet"):
            weights = str(Path(weights).absolute())
        return replace(self, run=run, train=replace(self.train, weights=weights))


@dataclass(frozen=True, kw_only=True)
class ExtractJob(RunSettings):
    """Turn views into the network's features (GoogLeNet has 1,024) and class probabilities."""

    inference: Annotated[InferenceSettings, OmitArgPrefixes] = field(default_factory=InferenceSettings)
    extract: Annotated[ExtractSettings, OmitArgPrefixes] = field(default_factory=ExtractSettings)


@dataclass(frozen=True, kw_only=True)
class ClassifyJob(RunSettings):
    """Fit the SVM and its rivals on the features and measure them and the network on validation and test galaxies."""

    classify: Annotated[ClassifySettings, OmitArgPrefixes] = field(default_factory=ClassifySettings)


@dataclass(frozen=True, kw_only=True)
class ReportJob(RunSettings):
    """Write the page that shows the run: RUN/report/index.html."""


@dataclass(frozen=True, kw_only=True)
class CompareJob:
    """Compare runs on one page: metrics with paired tests, learning curves, and the galaxies on which they differ."""

    __pydantic_config__ = _STRICT

    runs: Positional[tuple[Path, ...]]
    """Two run directories or more; differences are to the first."""
    output: Path = Path("comparison.html")
    """The page to write; its numbers go to a .json beside it."""
    verbose: bool = False
    """Show Python's warnings, and all of an error."""

    @property
    def place(self) -> Path:
        """What the job writes to."""
        return self.output


@dataclass(frozen=True, kw_only=True)
class ClusterJob:
    """Start or stop a Spark standalone cluster on this machine, to try --profile standalone, or show what runs."""

    __pydantic_config__ = _STRICT

    action: Positional[Literal["start", "stop", "status"]]
    """What to do. start leaves what runs as it is."""
    directory: Path = Path(__file__).parent.parent / ".cluster"
    """For logs, pids and the executors' files."""
    host: str = "127.0.0.1"
    """Address to listen at. The default is heard on this machine only."""
    port: Port = 7077
    """The master's port."""
    web_port: Port = 8080
    """The port of the master's page."""
    workers: Annotated[int, Field(ge=0, le=64)] = 2
    """Workers beside the master; 0: they come from other machines."""
    cores: Annotated[int, Field(ge=1)] = 1
    """Cores of each worker."""
    memory_mb: Annotated[int, Field(ge=512)] = 1_024
    """Memory of each worker for executors' JVMs, in MB; at least spark.executor.memory of the profile."""
    verbose: bool = False
    """Show all of an error."""

    @property
    def place(self) -> Path:
        """What the job writes to."""
        return self.directory


@dataclass(frozen=True, kw_only=True)
class PackJob:
    """Pack the Python packages that executors need, for clusters whose machines do not see this checkout."""

    __pydantic_config__ = _STRICT

    output: Path = Path("build/environment.tar.gz")
    """The archive to write, some 500 MB; spark.archives in a profile names it."""
    verbose: bool = False
    """Show all of an error."""

    @property
    def place(self) -> Path:
        """What the job writes to."""
        return self.output


@dataclass(frozen=True, kw_only=True)
class PackImagesJob:
    """Pack a folder of many image files into Parquet files of some hundred MB, which --images and --new-images take."""

    __pydantic_config__ = _STRICT

    images: str
    """Folder of images, or of shards of them; any path Spark reads."""
    packed: str
    """Folder to write, which must not be there yet; any path Spark writes."""
    shard_mb: Annotated[float, Field(gt=0, le=2_000)] = 256.0
    """About so many MB of images in a file, where there are enough for all cores."""
    max_file_mb: Annotated[float, Field(gt=0, le=1_000)] = 32.0
    """Larger image files are listed, but not packed, in MB."""
    verbose: bool = False
    """Show the logs of Spark, and all of an error."""

    @property
    def place(self) -> Path:
        """What the job writes to."""
        return Path(self.packed)


@dataclass(frozen=True, kw_only=True)
class StatusJob:
    """Show which stages of a run are done, from what and when, and what comes next."""

    __pydantic_config__ = _STRICT

    run: Positional[Path]
    """Run directory."""
    verbose: bool = False
    """Show all of an error."""

    @property
    def place(self) -> Path:
        """The run that the job is about."""
        return self.run


@dataclass(frozen=True, kw_only=True)
class PredictJob(RunSettings):
    """Classify images that nobody has labelled into a catalogue, one row an image; or look into the catalogue there."""

    new_images: str = ""
    """Folder of images to classify, or of tar or Parquet files of them; any path Spark reads."""
    like: str = ""
    """Instead of classifying, list the images of the catalogue that are most like the one of this id."""
    odd: Annotated[int, Field(ge=0)] = 0
    """Instead of classifying, list so many of the catalogue's strangest images."""
    inference: Annotated[InferenceSettings, OmitArgPrefixes] = field(default_factory=InferenceSettings)
    predict: Annotated[PredictSettings, OmitArgPrefixes] = field(default_factory=PredictSettings)


@dataclass(frozen=True, kw_only=True)
class DreamJob(RunSettings):
    """Show what the layers and classes of the network respond to: RUN/dreams, or one picture, RUN/dream-....png."""

    layer: str = ""
    """Make one picture only, of this layer."""
    dream_class: str = ""
    """Make one picture only, of this class."""
    image: str = ""
    """Image file that the one picture begins with. Empty: a test galaxy."""
    noise: bool = False
    """Begin the one picture with noise instead."""
    guide: str = ""
    """Image file that the layer is to respond like, instead of to whatever it sees."""
    dream: Annotated[DreamSettings, OmitArgPrefixes] = field(default_factory=DreamSettings)


@dataclass(frozen=True, kw_only=True)
class PipelineJob(RunSettings):
    """Run every stage, on your galaxies or, without --images and --labels, on simulated ones."""

    images: str = ""
    """Folder of labelled images; any path Spark reads. Empty: simulate galaxies first."""
    labels: str = ""
    """CSV file of their votes or labels."""
    new_images: str = ""
    """Folder of images to classify at the end. Empty: the catalogue lists --images themselves."""
    ranks: Annotated[int, Field(ge=1)] = 2
    """Horovod processes that train together on this machine."""
    profile: str = "local"
    """Where Spark runs: local, standalone, yarn or kubernetes (conf/spark), or a Spark properties file."""
    start_at: Literal["simulate", "augment", "train", "extract", "classify", "predict", "dream", "report"] = "simulate"
    """First stage to run; the earlier ones must have been published in this run."""
    simulate: Annotated[SimulateSettings, OmitArgPrefixes] = field(default_factory=SimulateSettings)
    augment: Annotated[AugmentSettings, OmitArgPrefixes] = field(default_factory=AugmentSettings)
    train: Annotated[TrainSettings, OmitArgPrefixes] = field(default_factory=TrainSettings)
    inference: Annotated[InferenceSettings, OmitArgPrefixes] = field(default_factory=InferenceSettings)
    extract: Annotated[ExtractSettings, OmitArgPrefixes] = field(default_factory=ExtractSettings)
    classify: Annotated[ClassifySettings, OmitArgPrefixes] = field(default_factory=ClassifySettings)
    predict: Annotated[PredictSettings, OmitArgPrefixes] = field(default_factory=PredictSettings)
    dream: Annotated[DreamSettings, OmitArgPrefixes] = field(default_factory=DreamSettings)
