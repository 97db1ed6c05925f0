"""Trains a CycleGAN: python main.py --config=configs/synthetic.py --workdir=runs/synthetic"""

from cyclegan_jax import flags

if __name__ == '__main__':
    flags.main()
