/* What a reader would see of a report's page: printed as JSON by tests/trainer/chromium.py. */
(() => {
  const box = (element) => element.getBoundingClientRect();
  const beyond = (inner, outer) =>
    inner.left < outer.left - 1 || inner.right > outer.right + 1 ||
    inner.top < outer.top - 1 || inner.bottom > outer.bottom + 1;
  const cross = (a, b) =>
    Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1 &&
    Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 2;
  const channels = (colour) => colour.match(/[\d.]+/g).slice(0, 3).map(Number);
  // Relative luminance and contrast: WCAG 2.2.
  const luminance = (colour) => channels(colour)
    .map((part) => part / 255)
    .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
    .reduce((sum, part, place) => sum + part * [0.2126, 0.7152, 0.0722][place], 0);
  const ground = getComputedStyle(document.documentElement).backgroundColor;
  const contrast = (colour) => {
    const both = [luminance(colour), luminance(ground)].sort((a, b) => b - a);
    return (both[0] + 0.05) / (both[1] + 0.05);
  };
  const plots = [...document.querySelectorAll("figure")].map((figure) => {
    const svg = figure.querySelector("svg");
    const texts = [...svg.querySelectorAll("text")].filter((text) => box(text).width > 0);
    const symbols = [...svg.querySelectorAll(".role-legend-symbol path")];
    const marks = [...svg.querySelectorAll(".role-mark path, .role-mark line")];
    const colours = new Set(marks.flatMap((mark) => {
      const style = getComputedStyle(mark);
      return [style.stroke, style.fill].filter((colour) => colour.startsWith("rgb"));
    }));
    return {
      title: figure.querySelector("h3").textContent,
      height: box(svg).height,
      texts: texts.map((text) => text.textContent),
      clipped: texts.filter((text) => beyond(box(text), box(svg))).map((t) => t.textContent),
      crossing: texts.flatMap((a, place) => [...texts.slice(place + 1), ...symbols]
        .filter((b) => cross(box(a), box(b)))
        .map((b) => [a.textContent, b.textContent])),
      colours: [...colours],
      marks: marks.filter((mark) => box(mark).width + box(mark).height > 2).length,
      weakest_text: Math.min(...texts.map((text) => contrast(getComputedStyle(text).fill))),
    };
  });
  const said = [...document.querySelectorAll("p, li a, th, td, dt, dd, figcaption, summary")];
  return JSON.stringify({
    plots,
    title: document.title,
    ground,
    weakest_text: Math.min(...said.map((one) => contrast(getComputedStyle(one).color))),
    sideways: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    requests: performance.getEntriesByType("resource").map((one) => one.name),
  });
})();
