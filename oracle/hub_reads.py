"""Checks that Hugging Face's own library finds what `imagecot pull` brought: python oracle/hub_reads.py ORG/NAME FILE...

Reads HF_HOME or HF_HUB_CACHE as imagecot does, offline.
"""
import os
import sys

os.environ["HF_HUB_OFFLINE"] = "1"
from huggingface_hub import hf_hub_download, scan_cache_dir, try_to_load_from_cache

repo, files = sys.argv[1], sys.argv[2:]
for name in files:
    path = hf_hub_download(repo, name)
    assert os.path.isfile(path) and try_to_load_from_cache(repo, name) == path, name
cache = scan_cache_dir()
assert not cache.warnings, cache.warnings
found = [r for r in cache.repos if r.repo_id == repo]
assert len(found) == 1 and found[0].refs.keys() == {"main"}, found
print(f"huggingface_hub finds {len(files)} files of {repo}: {found[0].size_on_disk} bytes, {found[0].nb_files} blobs")
