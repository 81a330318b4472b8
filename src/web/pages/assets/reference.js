// Shows the API's document with Swagger UI.
"use strict";

const place = document.getElementById("reference");

// Its colours follow the visitor's, as those of the other pages do.
const dark = matchMedia("(prefers-color-scheme: dark)");
const dress = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", dress);
dress();

// By itself it puts a link into the button that opens an operation, which a keyboard and a screen reader cannot tell apart.
const plainNames = ({ React }) => ({ components: { DeepLink: ({ text }) => React.createElement("span", null, text) } });

SwaggerUIBundle({
  domNode: place,
  url: place.dataset.document,
  plugins: [plainNames],
  deepLinking: true,
  syntaxHighlight: { theme: "tomorrow-night" },
  defaultModelsExpandDepth: 0,
  // By default it sends the document's address to a validator on another host.
  validatorUrl: null,
});
