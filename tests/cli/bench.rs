//! Commands that measure: what they print for programs.

use crate::project::TestProject;

const TINY: [&str; 9] =
    ["--arch", "resnet8", "--variant", "origin", "--batch", "2", "--warmup", "0", "--repeats=1"];

#[test]
fn bench_step_measures_the_step_the_machine_and_the_memory() {
    let project = TestProject::new("");
    for pass in [&["bench", "step", "--json"][..], &["bench", "step", "--json", "--predict"]] {
        let report = project.json(&[pass, &TINY].concat(), 0);
        let number = |key: &str| report[key].as_f64().unwrap_or_else(|| panic!("no `{key}` in {report:#}"));
        for key in ["images_per_second", "gflops", "fma_peak_gflops", "memory_gbytes_per_second"] {
            assert!(number(key) > 0.0, "{report:#}");
        }
        let fraction = number("gflops") / number("fma_peak_gflops");
        assert!((number("fraction_of_peak") / fraction - 1.0).abs() < 1e-9, "{report:#}");
        let rate = 2.0 / report["seconds"]["median"].as_f64().unwrap();
        assert!((number("images_per_second") / rate - 1.0).abs() < 1e-9, "{report:#}");
        assert!(report["buffer_bytes"].is_u64() && report["batch_buffer_bytes"].is_u64(), "{report:#}");
        for key in ["peak_rss_bytes", "rss_growth_bytes"] {
            // Elsewhere nobody says what a process holds.
            let known = report[key].is_u64() || !cfg!(target_os = "linux") && report.get(key).is_some();
            assert!(known, "no `{key}` in {report:#}");
        }
        assert_eq!(report["threads"], 1);
    }
}

#[test]
fn bench_kernels_measures_those_with_a_text_in_their_name() {
    let project = TestProject::new("");
    let report = project.json(&["bench", "kernels", "forward 16>", "--repeats", "1", "--json"], 0);
    let kernels = report["kernels"].as_array().unwrap();
    let names: Vec<_> = kernels.iter().filter_map(|k| k["name"].as_str()).collect();
    let expected = ["16>16 3x3/1 32x32", "16>32 3x3/2 32x32", "16>32 1x1/2 32x32"];
    assert_eq!(names, expected.map(|name| format!("forward {name}")));
    for kernel in kernels {
        let [rate, fraction] = ["gflops", "fraction_of_peak"].map(|key| kernel[key].as_f64().unwrap());
        assert!(rate > 0.0 && fraction > 0.0 && report["fma_peak_gflops"].as_f64() > Some(0.0), "{report:#}");
    }
    let none = project.ends(&["bench", "kernels", "nothing"], 2).err;
    assert!(none.contains("no kernel"), "{none}");
}

#[test]
fn bench_refuses_what_does_not_exist_and_says_what_does() {
    let project = TestProject::new("");
    let unknown = project.ends(&["bench", "step", "--arch", "resnet9"], 2).err;
    assert!(unknown.contains("resnet14-8"), "{unknown}");
    let isa = project.ends(&["bench", "step", "--isa", "mmx"], 2).err;
    let group = project.ends(&["bench", "step", "--instances", "2"], 2).err;
    assert!(group.contains("add `--device cuda`"), "{group}");
    for unheeding in [["--engine", "reference"], ["--device", "cuda"]] {
        let args = [&["bench", "step", "--memory", "1000"], &unheeding[..]].concat();
        let memory = project.ends(&args, 2).err;
        assert!(memory.contains("only the CPU engine"), "{memory}");
    }
    let tf32 = project.ends(&["bench", "step", "--precision", "tf32", "--engine", "cpu"], 2).err;
    assert!(tf32.contains("the processor has no tf32"), "{tf32}");
    let tf32 = project.ends(&["bench", "step", "--precision", "tf32"], 2).err;
    assert!(tf32.contains("cpu engine: the processor has no tf32"), "{tf32}");
    for command in [&["plan", "resnet8"][..], &["bench", "step"]] {
        let unheeded = project.ends(&[command, &["-k", "5"]].concat(), 2).err;
        assert!(unheeded.contains("add `--mode random`"), "{unheeded}");
    }
    assert!(isa.contains("unknown instruction set") && isa.contains("portable"), "{isa}");
    // As many steps as a number holds, and those that are timed after them.
    for option in ["--warmup", "--repeats"] {
        let many = project.ends(&["bench", "step", option, "4294967295"], 2).err;
        assert!(many.contains("1000000"), "{many}");
    }
}

#[test]
fn plan_lists_operations_and_adds_them_up() {
    let project = TestProject::new("");
    let plan = project.json(&["plan", "resnet8", "--variant", "origin", "--batch", "2", "--json"], 0);
    let operations = plan["operations"].as_array().unwrap();
    assert_eq!(operations.len(), 7 + 3 + 1);
    let sum: u64 = operations.iter().filter_map(|o| o["flop"]["forward"].as_u64()).sum();
    assert_eq!(plan["flop"]["forward"], sum);
    assert_eq!(plan["flop"]["weights"], 0);
    assert!(
        plan["trained"].as_u64() < plan["parameters"].as_u64() && plan["bytes"]["step"].as_u64() > Some(0)
    );
    assert!(plan["buffer_bytes"].is_u64() && plan["engine"].is_string(), "{plan:#}");
    let shown = project.ends(&["plan", "resnet8", "--batch", "2", "--mode", "all"], 0).out;
    assert!(shown.contains("layer2.0.shortcut.0") && shown.contains("normalise, add, rectify"), "{shown}");
    assert!(shown.contains("prepared filters"), "{shown}");
    let tight = project.ends(&["plan", "resnet8", "--batch", "2", "--memory", "1_000"], 0).err;
    assert!(tight.contains("a smaller batch takes less"), "{tight}");
    let unit = project.ends(&["plan", "resnet8", "--memory", "100MB"], 2).err;
    assert!(unit.contains("write bytes, such as 100_000_000"), "{unit}");
}

#[test]
fn plan_tells_the_passes_of_the_engine_and_the_memory_that_it_holds() {
    let project = TestProject::new("");
    let of = |more: &[&str]| {
        let common = ["plan", "resnet8", "--variant", "paper", "--batch", "3", "--engine", "cpu", "--json"];
        project.json(&[&common[..], more].concat(), 0)
    };
    let number = |x: &serde_json::Value| x.as_u64().unwrap();
    let (bn, all, half) = (of(&[]), of(&["--mode", "all"]), of(&["--precision", "bf16"]));
    let of_way = |plan: &serde_json::Value, way: &str| {
        let passes = plan["passes"].as_array().unwrap().iter();
        passes.filter(|p| p["direction"] == way).map(|p| number(&p["flop"])).collect::<Vec<_>>()
    };
    for plan in [&bn, &all, &half] {
        assert_eq!(of_way(plan, "forward").iter().sum::<u64>(), number(&plan["flop"]["forward"]));
        let buffers = plan["buffers"].as_array().unwrap();
        assert_eq!(buffers.iter().map(|b| number(&b["bytes"])).sum::<u64>(), number(&plan["buffer_bytes"]));
        assert!(number(&plan["batch_buffer_bytes"]) < number(&plan["buffer_bytes"]));
    }
    assert!(of_way(&bn, "filters").is_empty());
    let none = of(&["--mode", "none"]);
    assert_eq!(of_way(&none, "forward").len(), none["passes"].as_array().unwrap().len());
    let few = project.ends(&["plan", "resnet8", "--mode", "random", "-k", "0"], 2).err;
    assert!(few.contains("choose k from 1 to 16"), "{few}");
    assert_eq!(of_way(&all, "filters").len(), 7 + 2);
    let read = |plan: &serde_json::Value| {
        plan["passes"].as_array().unwrap().iter().map(|p| number(&p["bytes_read"])).sum::<u64>()
    };
    assert!(read(&half) * 100 < read(&bn) * 55, "{} of {}", read(&half), read(&bn));
}

#[test]
fn plan_knows_the_buffers_of_large_batches_without_making_them() {
    let project = TestProject::new("");
    let tiny = ["--variant", "origin", "--mode", "all", "--batch", "200", "--json"];
    let plan = project.json(&[&["plan", "resnet8"][..], &tiny].concat(), 0);
    let one = ["bench", "step", "--arch", "resnet8", "--warmup", "0", "--repeats", "1"];
    let made = project.json(&[&one[..], &tiny].concat(), 0);
    assert_eq!(plan["buffer_bytes"], made["buffer_bytes"]);
}

#[test]
fn doctor_tells_what_the_machine_has() {
    let project = TestProject::new("");
    let found = project.json(&["doctor", "--json"], 0);
    let sets = found["instruction_sets"].as_array().unwrap();
    assert_eq!(sets.last().unwrap(), "portable");
    assert!(found["threads"].as_u64() > Some(0));
    assert_eq!((&found["cache"]["exists"], &found["cache"]["files"]), (&false.into(), &0.into()));
    std::fs::create_dir_all(project.path(".repro/objects")).unwrap();
    project.write(".repro/objects/a", "12345");
    let found = project.json(&["doctor", "--json"], 0);
    let cache = &found["cache"];
    assert_eq!((&cache["writable"], &cache["files"], &cache["bytes"]), (&true.into(), &1.into(), &5.into()));
    let cuda = &found["cuda"];
    let missing = cuda["missing"].as_array().unwrap().len();
    assert_eq!(cuda["cards"].as_array().unwrap().is_empty(), cuda["version"].is_null());
    assert_eq!(missing, [&cuda["version"], &cuda["nvrtc"]].iter().filter(|found| found.is_null()).count());
    let shown = project.ends(&["doctor"], 0).out;
    assert!(shown.contains("CUDA driver") && shown.contains("CUDA compiler"), "{shown}");
    assert!(shown.contains("`.repro`: 1 file, 5 B"), "{shown}");
    // A file in a folder has the cache of its project.
    std::fs::create_dir(project.path("experiments")).unwrap();
    project.write("experiments/depth.toml", "");
    let found = project.json(&["-f", "experiments/depth.toml", "doctor", "--json"], 0);
    assert_eq!(found["cache"]["bytes"], 5);
}
