(() => {
  "use strict";
  const one = (selector, root = document) => root.querySelector(selector);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const still = matchMedia("(prefers-reduced-motion: reduce)");

  // Panels: the address says which is open; the rest of the page is out of reach meanwhile.
  let left = null;
  const panel = () => one(".panel:target");
  const settle = () => {
    const open = panel();
    for (const part of all("body > :not(.panels, script)")) part.inert = Boolean(open);
    if (open) {
      open.scrollTop = 0;
      one("h2", open).focus();
      left = open.id;
    } else {
      if (location.hash === "#cell-" + left) one(location.hash + " a").focus();
      left = null;
    }
  };
  addEventListener("hashchange", settle);
  addEventListener("keydown", (event) => {
    const open = panel();
    if (!open || event.altKey || event.ctrlKey || event.metaKey) return;
    const link = { ArrowLeft: "[rel=prev]", ArrowRight: "[rel=next]", Escape: ".close" }[event.key];
    const target = link && one(link, open);
    if (target) {
      event.preventDefault();
      location.replace(target.hash);
    }
  });
  settle();

  // The walk: a scene's pictures large, one stop at a time, fading one into the next.
  const walk = one("#walk");
  const [scene, stop, back, front, without] = ["scene", "stop", "back", "front", "without"].map((n) => one(`#walk-${n}`));
  const frame = one(".frame", walk);
  let shown = "";
  const show = () => {
    const id = `picture-${scene.value}-${without.checked ? 0 : stop.value}`;
    const source = one(`#${id} .large`);
    if (!source || id === shown) return;
    const shape = one(`#${id} .sides`).style;
    const alike = shape.getPropertyValue("--aspect") === frame.style.getPropertyValue("--aspect");
    back.src = alike ? front.src : source.src;
    front.src = source.src;
    front.alt = source.alt;
    for (const name of ["--native", "--aspect"]) frame.style.setProperty(name, shape.getPropertyValue(name));
    if (shown && alike && !still.matches) front.animate({ opacity: [0, 1] }, { duration: 320, easing: "ease-out" });
    shown = id;
    one("#walk-shares").replaceChildren(one(`#${id} .shares, #${id} .nothing`).cloneNode(true));
    one("#walk-prompt").textContent = one(`#${id} .prompt`).textContent;
    one("#walk-open").hash = id;
    stop.setAttribute("aria-valuetext", one(`#${id} .where`).textContent);
    stop.disabled = without.checked;
    for (const list of all(".changes")) list.hidden = list.dataset.scene !== scene.value;
  };
  for (const control of [scene, stop, without]) control.addEventListener("input", show);
  walk.hidden = false;
  show();
})();
