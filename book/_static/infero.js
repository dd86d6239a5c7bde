// Small things that need the page's measurements: what is too wide for a narrow screen scrolls in
// its own box, and such a box can be reached and scrolled by key.

function reachable(box) {
  if (box.scrollWidth > box.clientWidth + 1) {
    box.tabIndex = 0;
  } else {
    box.removeAttribute("tabindex");
  }
}

function formulas() {
  for (const math of document.querySelectorAll("mjx-container:not([display])")) {
    const room = math.closest("p, li, dd, td, figcaption, div")?.clientWidth ?? Infinity;
    math.classList.toggle("infero-wide", math.scrollWidth > room + 1);
    if (math.classList.contains("infero-wide")) reachable(math);
  }
  document.querySelectorAll('mjx-container[display="true"]').forEach(reachable);
}

function watch() {
  const boxes = document.querySelectorAll(".infero-scroll");
  const observer = new ResizeObserver((entries) => entries.forEach((e) => reachable(e.target)));
  boxes.forEach((box) => observer.observe(box));
  window.addEventListener("load", async () => {
    boxes.forEach(reachable);
    await window.MathJax?.startup?.promise;
    formulas();
    new ResizeObserver(formulas).observe(document.body);
  });
}

watch();
