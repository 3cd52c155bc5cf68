"""Builds the operator library and the forest module with ninja and puts them into the package. The rest is in
pyproject.toml."""

from __future__ import annotations

import runpy
import shutil
import sys
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build import build
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "csrc"))
sys.dont_write_bytecode = True  # csrc holds sources alone

import build_plan  # noqa: E402


class BuildWithNinja(build_ext):
    """Both at once; each extension is then a file to copy."""

    def get_ext_filename(self, fullname: str) -> str:
        if fullname.endswith("librosepo"):  # without Python symbols, so its name carries no Python version
            return "/".join(fullname.split(".")) + ".so"
        return super().get_ext_filename(fullname)

    def build_extensions(self) -> None:
        folder = ROOT / "build" / "ninja"
        folder.mkdir(parents=True, exist_ok=True)
        hash_sources = runpy.run_path(str(ROOT / "rosepo_bench/engine/ops/build_id.py"))["source_hash"]
        try:
            tools = build_plan.find_toolchain()
            cuda = tools.cuda_home or "left out (no nvcc was found, or ROSEPO_CUDA=0)"
            print(f"rosepo_bench: C++ {tools.cxx}, CUDA {cuda}")
            self.built = build_plan.write_ninja(ROOT, folder, tools, hash_sources(ROOT / "csrc"))
            build_plan.run_ninja(ROOT, folder)
        except build_plan.BuildError as error:
            raise SystemExit(f"rosepo_bench: {error}") from None
        super().build_extensions()

    def build_extension(self, ext: Extension) -> None:
        target = Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        # A new file, then a rename: a process that has the old one mapped keeps it.
        fresh = target.with_suffix(".new")
        shutil.copyfile(self.built[ext.name.rpartition(".")[2]], fresh)
        fresh.replace(target)


class CleanBuild(build):
    """A module deleted from the sources must not survive in a later wheel."""

    def run(self) -> None:
        shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()


sources = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "csrc").iterdir() if path.is_file())
setup(
    packages=[*find_packages(include=["rosepo_bench", "rosepo_bench.*"]), "rosepo_bench.baselines"],
    ext_modules=[
        Extension(f"rosepo_bench.engine.{name}", sources=[], depends=sources)
        for name in ("ops.librosepo", "forest._forest")
    ],
    cmdclass={"build": CleanBuild, "build_ext": BuildWithNinja},
)
