"""Eight CPU devices for every test, so that sharding is always exercised as on a pod."""

import os

os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ['XLA_FLAGS'] = (
    os.environ.get('XLA_FLAGS', '') + ' --xla_force_host_platform_device_count=8'
)
# Networks in tests are tiny: compiling them costs far more than running them.
os.environ['JAX_DISABLE_MOST_OPTIMIZATIONS'] = '1'
