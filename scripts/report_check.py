#!/usr/bin/env python3
"""Draws the HTML reports in headless Chromium and checks what a reader would see.

    apt-get install chromium chromium-driver
    pip install selenium
    python scripts/report_check.py [--binary target/release/lora-tool] [--keep DIRECTORY]

Makes pages of the fixtures, and of an adapter whose names attack the page; opens each at 390 and
1400 px, light and dark. Fails on a message of the console, on a request to a network, on a chart that
is not drawn or leaves its card, on a page wider than the screen, and on low contrast of text.
"""

import argparse
import json
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile

from selenium import webdriver

ROOT = pathlib.Path(__file__).resolve().parent.parent
SIZES = [(390, 844), (1400, 900)]
HOSTILE = "</title></text><script>document.title='owned'</script><img src=x onerror=alert(1)>\u202e.layers.0.q"

# Everything that is wrong with the page as it stands, as a list of strings.
FAULTS = r"""
const faults = [];
const width = document.documentElement.clientWidth;
if (document.documentElement.scrollWidth > width)
  faults.push(`the page is ${document.documentElement.scrollWidth} px wide on ${width}`);
const charts = [...document.querySelectorAll('svg[role=img]')];
if (charts.length < arguments[0]) faults.push(`${charts.length} charts, ${arguments[0]} expected`);
for (const chart of charts) {
  const name = chart.querySelector('title')?.textContent ?? 'without title';
  const marks = chart.querySelectorAll('polyline, circle, rect').length;
  const box = chart.getBoundingClientRect();
  if (!marks) faults.push(`${name}: nothing drawn`);
  if (box.width < 250 || box.height < 60) faults.push(`${name}: ${box.width} x ${box.height} px`);
  for (const text of chart.querySelectorAll('text')) {
    const inner = text.getBoundingClientRect();
    if (inner.left < box.left - 1 || inner.right > box.right + 1 || inner.top < box.top - 1 ||
        inner.bottom > box.bottom + 1)
      faults.push(`${name}: "${text.textContent}" leaves the drawing`);
  }
  for (const id of chart.getAttribute('aria-labelledby').split(' '))
    if (document.querySelectorAll('#' + id).length !== 1) faults.push(`${name}: no single #${id}`);
}
const light = colour => {
  const part = colour.match(/[\d.]+/g).slice(0, 3).map(v => v / 255);
  const [r, g, b] = part.map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ground = element => {
  for (; element; element = element.parentElement) {
    const colour = getComputedStyle(element).backgroundColor;
    if (colour !== 'rgba(0, 0, 0, 0)') return colour;
  }
  return 'rgb(255, 255, 255)';
};
for (const element of document.querySelectorAll('h1, h2, p, dt, dd, th, td, figcaption *, li, footer, svg text')) {
  const style = getComputedStyle(element);
  const [a, b] = [light(element.closest('svg') ? style.fill : style.color), light(ground(element))];
  const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  if (contrast < 4.5) faults.push(`contrast ${contrast.toFixed(1)} of "${element.textContent.slice(0, 30)}"`);
}
if (document.querySelector('script, img, link, iframe')) faults.push('foreign elements');
if (document.title === 'owned') faults.push('a name ran as a script');
return [...new Set(faults)].slice(0, 20);
"""


def safetensors(path, tensors):
    header, data = {}, b""
    for name, (shape, values) in tensors.items():
        encoded = struct.pack(f"<{len(values)}f", *values)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + len(encoded)]}
        data += encoded
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def hostile(path):
    values = [((7 * i) % 11 - 5) / 10 for i in range(32)]
    tensors = {}
    for layer in range(3):
        name = HOSTILE.replace("layers.0", f"layers.{layer}")
        tensors[f"{name}.lora_down.weight"] = ([4, 8], values)
        tensors[f"{name}.lora_up.weight"] = ([8, 4], values[::-1])
        tensors[f"{name}.alpha"] = ([], [4.0])
    safetensors(path, tensors)


def model(path, seed, layers=32, rank=16):
    """An adapter of a model's depth, so that the map of layers is as long as in real life."""
    state = seed

    def draw(count, size):
        nonlocal state
        values = []
        for _ in range(count):
            state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
            values.append((state / 2**63 - 1) * size)
        return values

    kinds = ["self_attn_q_proj", "self_attn_k_proj", "self_attn_v_proj", "self_attn_o_proj",
             "mlp_gate_proj", "mlp_up_proj", "mlp_down_proj"]
    tensors = {}
    for layer in range(layers):
        for at, kind in enumerate(kinds):
            name = f"lora_te_model_layers_{layer}_{kind}"
            size = 0.02 * (1 + layer / 8) * (1 + at % 3)
            up = draw(48 * rank, size)
            up = [value / (1 + 0.4 * (i % rank)) for i, value in enumerate(up)]
            tensors[f"{name}.lora_down.weight"] = ([rank, 40], draw(rank * 40, 1.0))
            tensors[f"{name}.lora_up.weight"] = ([48, rank], up)
            tensors[f"{name}.alpha"] = ([], [float(rank)])
    safetensors(path, tensors)


def pages(binary, directory):
    """The pages, and how many charts each has at least."""
    llama = ROOT / "fixtures" / "llama"
    hostile(directory / "hostile.safetensors")
    model(directory / "one.safetensors", 1)
    model(directory / "two.safetensors", 2)
    one, two = directory / "one.safetensors", directory / "two.safetensors"
    made = {
        "inspect": (["inspect", llama / "style", llama / "task", llama / "base"], 6),
        "inspect-deep": (["inspect", one], 3),
        "inspect-hostile": (["inspect", directory / "hostile.safetensors"], 3),
        "compare": (["compare", llama / "style", llama / "task"], 11),
        "compare-deep": (["compare", one, two], 11),
    }
    for name, (arguments, charts) in made.items():
        page = directory / f"{name}.html"
        subprocess.run([binary, *arguments, "--report", page], check=True, stdout=subprocess.DEVNULL)
        yield name, page, charts


def browser():
    options = webdriver.ChromeOptions()
    for argument in ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars"]:
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = shutil.which("chromedriver")
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=driver))


def check(driver, name, page, charts, keep):
    faults = []
    for width, height in SIZES:
        for scheme in ["light", "dark"]:
            driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {
                "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600})
            driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {
                "features": [{"name": "prefers-color-scheme", "value": scheme}]})
            driver.get(page.as_uri())
            found = driver.execute_script(FAULTS, charts)
            found += [entry["message"] for entry in driver.get_log("browser")]
            for entry in driver.get_log("performance"):
                event = json.loads(entry["message"])["message"]
                if event["method"] == "Network.requestWillBeSent":
                    url = event["params"]["request"]["url"]
                    if not url.startswith(page.as_uri()):
                        found.append(f"asks for {url}")
            faults += [f"{name} at {width} px, {scheme}: {fault}" for fault in found]
            if keep:
                length = driver.execute_script("return document.documentElement.scrollHeight")
                driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {
                    "width": width, "height": min(length, 4000), "deviceScaleFactor": 1,
                    "mobile": width < 600})
                driver.save_screenshot(str(keep / f"{name}-{width}-{scheme}.png"))
    return faults


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", type=pathlib.Path, default=ROOT / "target" / "release" / "lora-tool")
    parser.add_argument("--keep", type=pathlib.Path, help="keep screenshots here")
    arguments = parser.parse_args()
    if arguments.keep:
        arguments.keep.mkdir(parents=True, exist_ok=True)
    faults, count = [], 0
    driver = browser()
    try:
        with tempfile.TemporaryDirectory() as directory:
            for page in pages(arguments.binary.resolve(), pathlib.Path(directory)):
                faults += check(driver, *page, arguments.keep)
                count += 1
    finally:
        driver.quit()
    for fault in faults:
        print(fault)
    print(f"{count} pages, {len(SIZES) * 2} views each: {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
