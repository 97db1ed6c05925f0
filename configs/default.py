"""Every field of a run, with the reference's defaults. Other configs start from this one.

python main.py --config=configs/default.py --config.data.path=datasets/horse2zebra --workdir=runs/x

Any field can be changed on the command line: --config.generator.width=32.

A run that is resumed keeps its fields, but for those whose comment opens with ~: they may change.
"""

import inspect
import re

from ml_collections import ConfigDict, config_dict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0  # of everything drawn: weights, order of images, crops, pool, dropout
    config.batch_size = 1  # images of each domain in an update, over all devices
    config.num_devices = config_dict.placeholder(int)  # ~ use only so many, of each host as many
    config.accumulate = 1  # ~ parts of a batch, one after the other, where the whole does not fit
    config.init_from = ''  # ~ trained networks to start from: workdir, export, PyTorch file, hub id
    config.dtype = 'float32'  # ~ type that convolutions compute in: 'float32', 'bfloat16'
    config.pool_size = 50  # generated images of each domain that are remembered; 0 for none
    config.augment = ''  # disturbs what discriminators see: 'brightness,saturation,contrast,shift'
    config.average = 0.0  # ~ share of the generators' average kept at an update, 0.999; 0 for none
    config.domain_a = 'A'  # ~ what lines and sample grids call the domains
    config.domain_b = 'B'  # ~ the other
    config.licence = ''  # ~ of the data, or whose terms hold: told on the card of an export
    config.max_steps = config_dict.placeholder(int)  # ~ stop after so many updates in all

    config.data = ConfigDict()
    config.data.source = 'folder'  # ~ 'folder', 'tfds', 'huggingface', 'synthetic'
    config.data.path = ''  # ~ folder of a folder set; data_dir of tfds; cache of huggingface
    config.data.name = ''  # ~ tfds: 'cycle_gan/...'; huggingface: id, folder; synthetic: see there
    config.data.name_b = ''  # ~ huggingface: id of domain b, where it is a data set of its own
    config.data.split_a = 'trainA'  # ~ sub-folder, or any other folder, or a split's name
    config.data.split_b = 'trainB'  # ~ that of domain b
    config.data.test_split_a = 'testA'  # ~ '' or absent: samples are drawn from training images
    config.data.test_split_b = 'testB'  # ~ that of domain b
    config.data.column_a = 'imageA'  # ~ huggingface only
    config.data.column_b = 'imageB'  # ~ that of domain b
    # Pixels that images are resized to, and that the networks see of them: n or (height, width).
    config.data.load_size = config_dict.FieldReference(286, field_type=object)
    config.data.crop_size = config_dict.FieldReference(256, field_type=object)
    # or 'crop', 'scale_width', 'scale_width_and_crop', 'none'
    config.data.resize = 'resize_and_crop'
    config.data.flip = True  # mirror half of the images, left to right
    config.data.channels_a = 3  # 1 (grey), 3 (RGB), 4 (RGBA); others are read as arrays
    config.data.channels_b = 3  # those of domain b
    # What follows is for pictures that are no photographs: docs/pictures.md
    config.data.dtype_a = 'uint8'  # type of the values: 'uint8', 'uint16', 'float32'
    config.data.dtype_b = 'uint8'  # that of domain b
    config.data.range = 'type'  # what networks see as -1 and 1: 'type', 'minmax', 'percentile'
    config.data.range_a = config_dict.placeholder(object)  # instead: (low, high), or one a channel
    config.data.range_b = config_dict.placeholder(object)  # that of domain b
    config.data.outside = 'clip'  # of values outside of the range; or 'refuse' the picture
    config.data.not_finite = 'refuse'  # of NaN and infinity; or 'low': the low end of the range
    config.data.pages = 'channels'  # of files with pages or slices; or 'pictures': each is one
    config.data.bands_a = ''  # names of the channels: 'blue,green,red,infrared'
    config.data.bands_b = ''  # those of domain b
    config.data.show_a = ''  # ~ channels in samples: 'red,green,blue', '0', 'thermal:heat'
    config.data.show_b = ''  # ~ those of domain b
    config.data.window_a = config_dict.placeholder(object)  # ~ (black, white) in samples
    config.data.window_b = config_dict.placeholder(object)  # ~ that of domain b
    config.data.max_images = config_dict.placeholder(int)  # ~ use the first so many of each domain
    config.data.cache = 4.0  # ~ GiB for decoded images; a set that needs more is decoded anew
    config.data.num_threads = 4  # ~ that decode images; changes the speed, never the result
    config.data.skip_corrupt = False  # ~ leave unreadable images out, and list them; else stop

    config.generator = ConfigDict()
    config.generator.kind = 'resnet'  # 'resnet', 'unet'
    config.generator.width = 64  # channels of the first layer
    config.generator.num_blocks = 9  # resnet: residual blocks; the paper has 6 at 128 px
    config.generator.num_downs = 8  # unet: halvings; 8 for 256 px, 7 for 128 px
    config.generator.downsample = 'stride'  # resnet: 'stride', 'blur'
    config.generator.upsample = 'transpose'  # resnet: 'transpose', 'nearest', 'blur'
    config.generator.global_skip = False  # resnet: adds the image to what is computed of it
    config.generator.dropout = 0.0  # share of features dropped while training
    config.generator.remat = False  # ~ resnet: less memory, more work; see docs/training.md

    config.discriminator = ConfigDict()
    config.discriminator.kind = 'patch'  # 'patch', 'two_scale', 'huggan' (one stride more), 'pixel'
    config.discriminator.width = 64  # channels of the first layer
    config.discriminator.downsample = 'stride'  # 'stride', 'blur'; not of 'pixel'
    config.discriminator.num_layers = 3  # strided blocks; 3 judge patches of 70x70 pixels

    config.loss = ConfigDict()
    config.loss.gan = 'lsgan'  # 'lsgan', 'vanilla' (cross-entropy), 'hinge'
    config.loss.adversarial_weight = 1.0  # 0 trains without discriminators: only a control
    config.loss.cycle_weight = 10.0  # of |b2a(a2b(a)) - a|, and the same for b
    config.loss.identity_weight = 5.0  # of |b2a(a) - a|, and the same for b; 0 if channels differ

    # What the two weights fall to while the learning rate decays.
    config.loss.cycle_weight_end = config_dict.placeholder(float)  # at the end; None: it stays
    config.loss.identity_weight_end = config_dict.placeholder(float)  # likewise
    config.loss.penalty_weight = 0.0  # of the discriminators' squared gradient, real to generated
    config.loss.penalty_every = 1  # updates between two of it, each times that: 8 saves time

    config.optimizer = ConfigDict()
    config.optimizer.learning_rate = 2e-4  # ~ Adam's
    config.optimizer.discriminator_rate = config_dict.placeholder(float)  # ~ theirs; None: the same
    config.optimizer.b1 = 0.5  # decay of Adam's mean of gradients
    config.optimizer.b2 = 0.999  # decay of its mean of their squares

    config.schedule = ConfigDict()
    config.schedule.num_epochs = 200  # ~ an epoch shows as many images as the larger domain has
    config.schedule.decay_start_epoch = 100  # ~ from here linear to almost 0; num_epochs: constant

    config.log_every = 100  # ~ steps between two log lines
    config.sample_every = 1000  # ~ steps between two grids of samples
    config.checkpoint_every = 5000  # ~ steps between two checkpoints
    config.evaluate_every = 0  # ~ steps between two scores of the run; 0: never
    # Scores; those that the data does not allow are left out. FID, KID: docs/evaluation.md
    config.evaluate_metrics = 'paired,labels,randconv_kid_v1,swd,monitors'  # ~
    config.evaluate_features = ''  # ~ FILE.onnx of a feature network, for frechet_NAME, kid_NAME
    config.keep_checkpoints = 2  # ~ how many, the newest
    config.keep_best = ''  # ~ and the best evaluated, by a score and a direction: 'psnr_a2b'
    config.allow_data_change = False  # ~ resume although the data set is not the one of the start

    marked = re.findall(r'config\.(\S+) = .*  # ~', inspect.getsource(get_config))
    config.may_change = tuple(marked)  # ~ the names of those fields
    return config.lock()
