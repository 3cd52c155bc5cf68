// What rosepo_bench/engine/ops/library.py looks for among the module's bytes before it is loaded. A file of
// its own: it changes with every source, and the binding takes long to compile.
extern "C" __attribute__((used)) const char rosepo_forest_build_id[] = "rosepo-build-id:" ROSEPO_BUILD_ID;
