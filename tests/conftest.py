"""Eight CPU devices for every test, so that sharding is always exercised as on a pod."""

import atexit
import gc
import os
import shutil
import signal
import tempfile

os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ['JAX_NUM_CPU_DEVICES'] = '8'
# Networks in tests are tiny: compiling them costs far more than running them. The older of the two
# ways in which XLA emits loops takes three quarters of the time, and so does code that is not split
# into parts to be compiled side by side. What one test or process has compiled serves the others.
os.environ['JAX_DISABLE_MOST_OPTIMIZATIONS'] = '1'
os.environ['XLA_FLAGS'] = os.environ.get('XLA_FLAGS', '') + (
    ' --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1'
)
if 'PYTEST_XDIST_WORKER' not in os.environ:  # workers have it from the process that starts them
    cache = tempfile.mkdtemp(prefix='cyclegan_jax_test_cache_')
    os.environ['JAX_COMPILATION_CACHE_DIR'] = cache
    atexit.register(shutil.rmtree, cache, ignore_errors=True)
os.environ['JAX_NUMPY_RANK_PROMOTION'] = 'raise'  # shapes that differ in length are a slip
os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0.2'

# What a shell runs in the background ignores it, and so would the processes that tests start.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = ['checkpoint_state', 'run_processes']  # fixtures of several test files


def pytest_collection_finish() -> None:
    """What is imported stays; looking for garbage in it again and again took an eighth of all."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
