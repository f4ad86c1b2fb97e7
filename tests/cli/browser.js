// Appended to a page by `browser.rs`: what a person would complain of, as JSON in the page's title.
addEventListener('load', () => {
  const found = [];
  const page = document.documentElement;
  document.querySelectorAll('details').forEach(details => { details.open = true; });
  if (page.scrollWidth > page.clientWidth) {
    found.push(`the page is ${page.scrollWidth} wide in a window of ${page.clientWidth}`);
  }
  const images = [...document.querySelectorAll('img')];
  for (const image of images) {
    if (!image.complete || image.naturalWidth < 100) found.push(`not shown: ${image.alt}`);
    // Its texts have places only in the page itself.
    const copy = document.createElement('div');
    copy.style.width = '900px';
    copy.dataset.name = image.alt;
    const bytes = Uint8Array.from(atob(image.src.replace('data:image/svg+xml;base64,', '')), c => c.charCodeAt(0));
    copy.innerHTML = new TextDecoder().decode(bytes);
    document.body.append(copy);
  }
  const drawings = [...document.querySelectorAll('svg')];
  let texts = 0;
  for (const drawing of drawings) {
    const name = drawing.parentElement.dataset.name ?? 'graph';
    const edge = drawing.getBoundingClientRect();
    const written = [...drawing.querySelectorAll('text')].filter(text => text.textContent.trim() !== '');
    const boxes = written.map(text => [text.textContent.trim(), text.getBoundingClientRect()]);
    boxes.forEach(([text, box], index) => {
      texts += Number(box.width > 0);
      if (box.left < edge.left - 1 || box.right > edge.right + 1 || box.top < edge.top - 1 || box.bottom > edge.bottom + 1) {
        found.push(`${name}: cut off: ${text}`);
      }
      for (const [other, that] of boxes.slice(index + 1)) {
        const width = Math.min(box.right, that.right) - Math.max(box.left, that.left);
        const height = Math.min(box.bottom, that.bottom) - Math.max(box.top, that.top);
        // Lines of text touch: their boxes are higher than their letters.
        if (width > 1 && height > Math.min(box.height, that.height) / 3) {
          found.push(`${name}: one over the other: ${text} and ${other}`);
        }
      }
    });
  }
  document.title = JSON.stringify({ images: images.length, drawings: drawings.length, texts, found });
});
